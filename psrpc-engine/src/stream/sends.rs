//! Sends. Each is kept until its message is acknowledged, or the send fails or is canceled.

use psrpc_proto::{IdGenerator, Text};

use crate::core::dedup::BucketKey;
use crate::core::handle::{SendHandle, StreamHandle};
use crate::core::in_flight::{InFlight, Vacancy};
use crate::core::map::HashKeys;
use crate::core::time::Time;
use crate::core::timers::{TimerKind, Timers};

/// The owner of a stream timer.
#[derive(Clone, Copy)]
pub(crate) enum StreamTimer {
    Idle(StreamHandle),
    Send(SendHandle),
    /// Messages of a stream that are held back expire.
    Held(StreamHandle),
    Bucket(BucketKey),
}

/// The sends of all streams, by the ids that their acks carry.
pub(super) struct Sends(InFlight<SendHandle, Sending>);

/// A send that has not ended.
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

    /// Draws an id that no other send has.
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

    /// Returns the id and the deadline of a message.
    pub(super) fn get(&self, send: SendHandle) -> Option<(&Text, Time)> {
        self.0.get(send).map(|entry| (&entry.id, entry.state.deadline))
    }

    pub(super) fn find(&self, request_id: &Text) -> Option<SendHandle> {
        self.0.find(request_id)
    }

    pub(super) fn stream(&self, send: SendHandle) -> Option<StreamHandle> {
        self.0.get(send).map(|entry| entry.state.stream)
    }

    /// Returns `true` if the deadline of a message has passed. Until its timer fires, the message
    /// is still known, but its ack is too late.
    pub(super) fn is_overdue(&self, now: Time, send: SendHandle) -> bool {
        self.0.get(send).is_some_and(|entry| now >= entry.state.deadline)
    }

    /// Records that the timer of a message has fired.
    pub(super) fn timer_fired(&mut self, send: SendHandle) {
        self.0.timer_fired(send);
    }

    /// Removes a message, and returns its stream.
    pub(super) fn settle<O: Copy>(
        &mut self,
        timers: &mut Timers<O>,
        send: SendHandle,
    ) -> Option<StreamHandle> {
        self.0.settle(send, timers).map(|(_, sending)| sending.stream)
    }
}
