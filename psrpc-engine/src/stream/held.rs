//! Messages held back until their consumer has room for them.

use alloc::collections::VecDeque;

use bytes::Bytes;
use psrpc_proto::Text;

use super::pending_message::PendingMessage;
use crate::core::time::{Expiry, Now, Time};
use crate::core::timers::{TimerId, TimerKind, Timers};
use crate::limits::StreamLimits;
use crate::reason::{Dropped, Reason};

/// A message that is neither delivered nor acknowledged yet.
pub(super) struct HeldMessage {
    pub(super) delivery: PendingMessage,
    pub(super) payload: Bytes,
    /// The message's own expiry. The allowance for skewed clocks does not count: a sender tries
    /// again after its own deadline, and the consumer would get the message twice.
    pub(super) expiry: Expiry,
}

/// The messages of one stream that are held back, in the order of their arrival.
pub(super) struct HeldMessages {
    messages: VecDeque<HeldMessage>,
    size: HeldSize,
    /// The timer and its time, which is never later than the earliest expiry. Armed as long as
    /// there are messages.
    timer: Option<(TimerId, Time)>,
}

/// How much is held back, by one stream or by all streams of an engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct HeldSize {
    pub(super) messages: usize,
    pub(super) bytes: usize,
}

impl HeldSize {
    fn add(&mut self, message: &HeldMessage) {
        self.messages += 1;
        self.bytes += message.payload.len();
    }

    fn subtract(&mut self, message: &HeldMessage) {
        self.messages -= 1;
        self.bytes -= message.payload.len();
    }

    fn has_room(&self, bytes: usize, max_messages: usize, max_bytes: usize) -> bool {
        self.messages < max_messages && bytes <= max_bytes.saturating_sub(self.bytes)
    }
}

impl HeldMessages {
    pub(super) const fn new() -> Self {
        Self { messages: VecDeque::new(), size: HeldSize { messages: 0, bytes: 0 }, timer: None }
    }

    pub(super) fn len(&self) -> usize {
        self.messages.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Returns `true` if a message of this size can be held back. `all` is the total of all
    /// streams.
    pub(super) fn has_room(&self, all: &HeldSize, bytes: usize, limits: &StreamLimits) -> bool {
        self.size.has_room(bytes, limits.held_per_stream, limits.held_bytes_per_stream)
            && all.has_room(bytes, limits.held, limits.held_bytes)
    }

    /// Adds a message. `owner` is the owner of the stream's timer.
    pub(super) fn push<O: Copy>(
        &mut self,
        all: &mut HeldSize,
        timers: &mut Timers<O>,
        message: HeldMessage,
        owner: O,
    ) {
        self.size.add(&message);
        all.add(&message);
        let expires = message.expiry.time();
        match &mut self.timer {
            Some((timer, at)) if expires < *at => {
                *at = expires;
                timers.rearm(*timer, expires, TimerKind::Expiry);
            }
            Some(_) => {}
            None => self.timer = Some((timers.arm(expires, TimerKind::Expiry, owner), expires)),
        }
        self.messages.push_back(message);
    }

    /// Removes the next message.
    pub(super) fn pop<O: Copy>(&mut self, all: &mut HeldSize, timers: &mut Timers<O>) -> Option<HeldMessage> {
        let message = self.messages.pop_front()?;
        self.size.subtract(&message);
        all.subtract(&message);
        if self.messages.is_empty()
            && let Some((timer, _)) = self.timer.take()
        {
            timers.disarm(timer);
        }
        Some(message)
    }

    /// Handles the timer: removes and returns the messages that have expired, and arms the timer
    /// for the next expiry.
    pub(super) fn timer_fired<O: Copy>(
        &mut self,
        all: &mut HeldSize,
        timers: &mut Timers<O>,
        now: Now,
        owner: O,
    ) -> VecDeque<HeldMessage> {
        let messages = core::mem::take(&mut self.messages).into_iter();
        let (expired, kept): (VecDeque<_>, _) = messages.partition(|message| message.has_expired(now));
        self.messages = kept;
        for message in &expired {
            self.size.subtract(message);
            all.subtract(message);
        }
        let next = self.messages.iter().map(|message| message.expiry.time()).min();
        self.timer = next.map(|next| (timers.arm(next, TimerKind::Expiry, owner), next));
        expired
    }
}

impl HeldMessage {
    /// Returns the report that the message is dropped.
    pub(super) fn dropped(self, stream_id: &Text) -> Dropped {
        Dropped::of(Reason::SlowConsumer, self.delivery.request_id, stream_id.clone())
    }

    pub(super) fn has_expired(&self, now: Now) -> bool {
        self.expiry.check(now).is_err()
    }
}
