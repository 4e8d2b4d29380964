//! The outputs of an engine, in order.

use alloc::collections::VecDeque;
use core::fmt;

use psrpc_proto::{Channel, Frame};

use crate::core::bus_error::BusError;
use crate::core::handle::{
    CallHandle, MultiHandle, RequestHandle, SendHandle, StreamHandle, SubscriptionHandle, UpdateHandle,
};
use crate::core::timers::Timers;
use crate::reason::{Counters, Dropped, Reason};

/// An output of an engine, other than the frames that it [lends](LentFrame). Carry out outputs in
/// the order in which they are polled.
#[derive(Clone, Debug)]
#[must_use]
pub enum Output<E> {
    /// Subscribe to a channel, and report the result with
    /// [`handle_subscribed`](crate::Engine::handle_subscribed) once the subscription is live.
    Subscribe {
        /// The handle that identifies the subscription in later calls.
        subscription: SubscriptionHandle,
        /// The channel.
        channel: Channel,
        /// How the subscription shares the channel's frames with others.
        kind: SubscriptionKind,
    },
    /// Unsubscribe, and report it with [`handle_unsubscribed`](crate::Engine::handle_unsubscribed)
    /// once the bus has confirmed it and every frame delivered until then was handed in.
    Unsubscribe {
        /// The subscription.
        subscription: SubscriptionHandle,
    },
    /// An event for the layer above.
    Event(E),
}

/// How a subscription shares the frames of its channel with others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SubscriptionKind {
    /// The subscription gets every frame.
    Plain,
    /// One of the channel's queue subscriptions gets each frame.
    Queue,
}

/// The token that ties the result of a publish to its frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token(pub(crate) Publish);

/// The kind of a published frame, and the entry that it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Publish {
    Request(CallHandle),
    Grant(CallHandle),
    Bid(RequestHandle),
    Announcement(RequestHandle),
    Response(RequestHandle),
    /// An error response or the close of a stream, for a request that was not accepted, or an error
    /// response in place of one that the bus cannot carry.
    Refusal,
    /// A grant to nobody, for a canceled call.
    Cancellation,
    MultiRequest(MultiHandle),
    /// A message of a stream.
    Message(SendHandle),
    /// The ack of a message of this stream, or of its opening.
    Ack(StreamHandle),
    /// The end of a stream.
    Close,
    Update(UpdateHandle),
}

/// The outputs, timers and counters of an engine, written by all its parts.
///
/// Frames to publish have a queue of their own, so a full bus delays neither events nor
/// subscriptions.
pub(crate) struct Outputs<E, O> {
    outputs: VecDeque<Output<E>>,
    publishes: VecDeque<QueuedFrame>,
    blocked: bool,
    /// The queue length at which frames that are no longer needed are withdrawn.
    withdraw_at: usize,
    /// How many closes of streams the bus has not confirmed yet.
    closes: usize,
    pub(crate) timers: Timers<O>,
    pub(crate) counters: Counters,
}

/// The lowest value of `withdraw_at`.
const MIN_WITHDRAW_AT: usize = 64;

/// The queue length from which no more acks and closes of streams are queued while the bus is full,
/// because their number is not bounded by the entries in flight.
const OVERFULL: usize = 131_072;

/// A frame that waits to be published.
struct QueuedFrame {
    token: Token,
    channel: Channel,
    frame: Frame,
}

/// The frame at the head of an engine's queue, lent to be published.
///
/// [`take`](Self::take) it once the bus accepts it, and report the result with
/// [`handle_published`](crate::Engine::handle_published). If the bus has no room, drop this and
/// call [`handle_full`](crate::Engine::handle_full): the frame stays where it is.
#[must_use = "a frame that is not taken is lent again"]
pub struct LentFrame<'a> {
    publishes: &'a mut VecDeque<QueuedFrame>,
    published: &'a mut u64,
    /// The flag of the frame's call, set once the frame is taken.
    sent: Option<&'a mut bool>,
}

impl LentFrame<'_> {
    /// Returns the token with which to report the result of the publish.
    #[inline]
    pub fn token(&self) -> Token {
        self.head().token
    }

    /// Returns the channel to publish on.
    #[inline]
    pub fn channel(&self) -> &Channel {
        &self.head().channel
    }

    /// Returns the frame.
    #[inline]
    pub fn frame(&self) -> &Frame {
        &self.head().frame
    }

    /// Takes the frame and its channel out of the queue.
    #[inline]
    pub fn take(mut self) -> (Channel, Frame) {
        self.mark_taken();
        let QueuedFrame { channel, frame, .. } = self.publishes.pop_front().expect(LENT);
        (channel, frame)
    }

    /// Takes the frame out of the queue.
    #[inline]
    pub fn take_frame(mut self) -> Frame {
        self.mark_taken();
        self.publishes.pop_front().expect(LENT).frame
    }

    /// Removes the frame from the queue without publishing it.
    pub fn discard(self) {
        self.publishes.pop_front();
    }

    /// Records that the frame is taken.
    #[inline]
    fn mark_taken(&mut self) {
        *self.published += 1;
        if let Some(sent) = &mut self.sent {
            **sent = true;
        }
    }

    #[inline]
    fn head(&self) -> &QueuedFrame {
        self.publishes.front().expect(LENT)
    }
}

const LENT: &str = "a lent frame is at the head of the queue";

impl fmt::Debug for LentFrame<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let QueuedFrame { token, channel, frame } = self.head();
        f.debug_struct("LentFrame")
            .field("token", token)
            .field("channel", channel)
            .field("frame", frame)
            .finish()
    }
}

/// The events that a client and a server have in common.
pub(crate) trait CommonEvent {
    /// Creates the event of a dropped frame.
    fn dropped(dropped: Dropped) -> Self;
    /// Creates the event of the first interrupted subscription.
    fn interrupted(cause: BusError) -> Self;
    /// Creates the event of the end of an interruption of `count` subscriptions.
    fn resumed(count: u32) -> Self;
}

impl<E: CommonEvent, O: Copy> Outputs<E, O> {
    pub(crate) const fn new() -> Self {
        Self {
            outputs: VecDeque::new(),
            publishes: VecDeque::new(),
            blocked: false,
            withdraw_at: MIN_WITHDRAW_AT,
            closes: 0,
            timers: Timers::new(),
            counters: Counters::new(),
        }
    }

    pub(crate) fn publish(&mut self, kind: Publish, channel: &Channel, frame: Frame) {
        self.closes += usize::from(kind == Publish::Close);
        self.publishes.push_back(QueuedFrame { token: Token(kind), channel: channel.clone(), frame });
    }

    /// Records that the bus took or failed to publish the close of a stream.
    pub(crate) fn close_published(&mut self) {
        self.closes = self.closes.saturating_sub(1);
    }

    /// Returns `true` if no close of a stream waits for the bus.
    pub(crate) fn is_done_with_closes(&self) -> bool {
        self.closes == 0
    }

    pub(crate) fn event(&mut self, event: E) {
        self.push(Output::Event(event));
    }

    /// Counts and reports a dropped frame.
    pub(crate) fn dropped(&mut self, dropped: Dropped) {
        self.counters.count(dropped.reason);
        self.event(E::dropped(dropped));
    }

    pub(crate) fn count(&mut self, reason: Reason) {
        self.counters.count(reason);
    }

    pub(crate) fn push(&mut self, output: Output<E>) {
        self.outputs.push_back(output);
    }

    /// Returns the next output.
    pub(crate) fn pop(&mut self) -> Option<Output<E>> {
        self.outputs.pop_front()
    }

    /// Returns the kind of the frame at the head of the queue, or `None` if the queue is empty or
    /// the bus has no room. Frames for which `is_needed` returns `false` are withdrawn.
    pub(crate) fn head(&mut self, mut is_needed: impl FnMut(Publish) -> bool) -> Option<Publish> {
        if self.publishes.len() >= self.withdraw_at {
            self.withdraw(&mut is_needed);
        }
        while !self.blocked {
            let head = self.publishes.front()?.token.0;
            if is_needed(head) {
                return Some(head);
            }
            self.publishes.pop_front();
            self.counters.count(Reason::Withdrawn);
        }
        None
    }

    /// Lends the frame at the head of the queue, which must not be empty. `sent` is set once the
    /// frame is taken.
    pub(crate) fn lend<'a>(&'a mut self, sent: Option<&'a mut bool>) -> LentFrame<'a> {
        LentFrame { publishes: &mut self.publishes, published: &mut self.counters.published, sent }
    }

    /// Stops lending frames until [`unblock`](Self::unblock), because the bus has no room.
    pub(crate) fn block(&mut self) {
        self.blocked = true;
    }

    /// Withdraws the frames for which `is_needed` returns `false`. The next withdrawal happens when
    /// the queue has doubled, so its cost is amortized, and the queue holds at most twice the
    /// frames in flight.
    pub(crate) fn withdraw(&mut self, mut is_needed: impl FnMut(Publish) -> bool) {
        let Self { publishes, counters, withdraw_at, closes, .. } = self;
        publishes.retain(|outgoing| {
            let needed = is_needed(outgoing.token.0);
            if !needed {
                *closes = closes.saturating_sub(usize::from(outgoing.token.0 == Publish::Close));
                counters.count(Reason::Withdrawn);
            }
            needed
        });
        *withdraw_at = MIN_WITHDRAW_AT.max(2 * publishes.len());
    }

    /// Returns `true` if the bus has no room.
    pub(crate) fn is_blocked(&self) -> bool {
        self.blocked
    }

    /// Returns `true` if the bus has no room and the queue has reached [`OVERFULL`].
    pub(crate) fn is_overfull(&self) -> bool {
        self.blocked && self.publishes.len() >= OVERFULL
    }

    pub(crate) fn unblock(&mut self) {
        self.blocked = false;
    }
}
