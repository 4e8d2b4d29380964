//! Messages on their way out, each until its ack comes or its deadline.

use psrpc_proto::{IdGenerator, Text};

use crate::core::dedup::BucketKey;
use crate::core::handle::{SendHandle, StreamHandle};
use crate::core::in_flight::{InFlight, Vacancy};
use crate::core::map::HashKeys;
use crate::core::time::Time;
use crate::core::timers::{TimerKind, Timers};

/// What a timer of streams is for.
#[derive(Clone, Copy)]
pub(crate) enum StreamTimer {
    Idle(StreamHandle),
    Send(SendHandle),
    Bucket(BucketKey),
}

/// The messages of all streams that were sent and not acknowledged, by the ids that their acks
/// carry.
pub(super) struct Sends(InFlight<SendHandle, Sending>);

/// A message that was sent and not acknowledged.
struct Sending {
    stream: StreamHandle,
    deadline: Time,
}

impl Sends {
    pub(super) fn new(keys: HashKeys) -> Self {
        Self(InFlight::new(keys))
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn contains(&self, send: SendHandle) -> bool {
        self.0.get(send).is_some()
    }

    /// An id that no other message on its way has.
    pub(super) fn draw_id(&self, ids: &mut IdGenerator) -> (Text, Vacancy) {
        loop {
            let request_id = ids.request();
            if let Some(vacancy) = self.0.vacancy(&request_id) {
                return (request_id, vacancy);
            }
        }
    }

    pub(super) fn start<O: Copy + From<StreamTimer>>(
        &mut self,
        timers: &mut Timers<O>,
        vacancy: Vacancy,
        request_id: Text,
        deadline: Time,
        stream: StreamHandle,
    ) -> SendHandle {
        let send = self.0.next();
        let timer = timers.arm(deadline, TimerKind::Deadline, StreamTimer::Send(send).into());
        self.0.insert(vacancy, request_id, Some(timer), Sending { stream, deadline });
        send
    }

    pub(super) fn find(&self, request_id: &Text) -> Option<SendHandle> {
        self.0.find(request_id)
    }

    pub(super) fn stream(&self, send: SendHandle) -> Option<StreamHandle> {
        self.0.get(send).map(|entry| entry.state.stream)
    }

    /// Whether the deadline of a message has come: it fails with the next tick, and its ack comes
    /// too late.
    pub(super) fn is_overdue(&self, now: Time, send: SendHandle) -> bool {
        self.0.get(send).is_some_and(|entry| now >= entry.state.deadline)
    }

    /// The timer of a message has fired.
    pub(super) fn fired(&mut self, send: SendHandle) {
        self.0.timer_fired(send);
    }

    /// A message is over: gives the stream that it was sent on.
    pub(super) fn settle<O: Copy>(
        &mut self,
        timers: &mut Timers<O>,
        send: SendHandle,
    ) -> Option<StreamHandle> {
        self.0.settle(send, timers).map(|(_, sending)| sending.stream)
    }
}
