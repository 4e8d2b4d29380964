//! Outputs: what an engine wants done, in order.

use alloc::collections::VecDeque;

use psrpc_proto::{Channel, Frame};

use crate::timers::Timers;
use crate::{
    CallHandle, Counters, Dropped, MultiHandle, Reason, RequestHandle, SendHandle, StreamHandle,
    SubscriptionHandle, UpdateHandle,
};

/// What an engine wants done. Outputs are to be carried out in the order in which they are polled.
///
/// Frames leave in the order in which they came about; events and subscriptions overtake frames that wait.
#[derive(Clone, Debug)]
#[must_use]
pub enum Output<E> {
    /// Subscribe to a channel, and report the result with
    /// [`handle_subscribed`](crate::Engine::handle_subscribed) once the subscription is live.
    Subscribe {
        /// What frames and results name it by.
        subscription: SubscriptionHandle,
        /// The channel.
        channel: Channel,
        /// How it shares the channel's frames with others.
        kind: SubscriptionKind,
    },
    /// Unsubscribe, and report with [`handle_unsubscribed`](crate::Engine::handle_unsubscribed) once the bus has
    /// confirmed it and every frame delivered until then was handed in.
    Unsubscribe {
        /// The subscription.
        subscription: SubscriptionHandle,
    },
    /// Publish a frame, and report the result with [`handle_published`](crate::Engine::handle_published).
    Publish {
        /// What the result is reported by.
        token: Token,
        /// The channel.
        channel: Channel,
        /// The frame.
        frame: Frame,
    },
    /// Something for the layer above.
    Event(E),
}

/// How a subscription shares the frames of its channel with others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SubscriptionKind {
    /// It gets every frame.
    Plain,
    /// Of all queue subscriptions of the channel, one gets each frame.
    Queue,
}

/// Names a publish, for its result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token(pub(crate) Publish);

/// What was published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Publish {
    Request(CallHandle),
    Grant(CallHandle),
    Bid(RequestHandle),
    Announcement(RequestHandle),
    Response(RequestHandle),
    /// An error response, or the close of a stream, to a request that was not let in.
    Refusal,
    /// A grant to nobody, for a call that was canceled.
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

/// What all parts of an engine write to: its outputs, timers and counters.
///
/// Frames to publish wait in a queue of their own: a bus that is full holds back neither events nor subscriptions.
pub(crate) struct Io<E, O> {
    outputs: VecDeque<Output<E>>,
    publishes: VecDeque<Outgoing>,
    blocked: bool,
    /// How many frames may wait before those that are over are withdrawn.
    crowded_at: usize,
    /// How many closes of streams the bus has not confirmed yet.
    closes: usize,
    pub(crate) timers: Timers<O>,
    pub(crate) counters: Counters,
}

/// So few frames may wait without a look at whether they are still wanted.
const CROWDED: usize = 64;

/// So many frames may wait for a full bus before it gets no more of those that nothing in flight bounds: the acks and
/// closes of streams.
const OVERFULL: usize = 131_072;

/// A frame that waits to be published.
struct Outgoing {
    token: Token,
    channel: Channel,
    frame: Frame,
}

/// An event that reports a dropped frame.
pub(crate) trait DroppedEvent {
    fn dropped(dropped: Dropped) -> Self;
}

impl<E: DroppedEvent, O: Copy> Io<E, O> {
    pub(crate) const fn new() -> Self {
        Self {
            outputs: VecDeque::new(),
            publishes: VecDeque::new(),
            blocked: false,
            crowded_at: CROWDED,
            closes: 0,
            timers: Timers::new(),
            counters: Counters::new(),
        }
    }

    pub(crate) fn publish(&mut self, what: Publish, channel: &Channel, frame: Frame) {
        self.closes += usize::from(what == Publish::Close);
        self.publishes.push_back(Outgoing { token: Token(what), channel: channel.clone(), frame });
    }

    /// The bus has the close of a stream, or does not take it.
    pub(crate) fn close_published(&mut self) {
        self.closes = self.closes.saturating_sub(1);
    }

    /// Whether the bus has all closes of streams.
    pub(crate) fn is_done_with_closes(&self) -> bool {
        self.closes == 0
    }

    pub(crate) fn event(&mut self, event: E) {
        self.push(Output::Event(event));
    }

    /// Counts a frame that is dropped, and reports it.
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

    /// The next output. A frame to publish that is not `wanted` any more is withdrawn; `wanted` is told whether it is put out.
    pub(crate) fn pop(&mut self, mut wanted: impl FnMut(Publish, bool) -> bool) -> Option<Output<E>> {
        if self.publishes.len() >= self.crowded_at {
            self.withdraw(|publish| wanted(publish, false));
        }
        if self.blocked && planted!(FullBusHoldsEvents) {
            return None;
        }
        if !self.outputs.is_empty() {
            return self.outputs.pop_front();
        }
        while !self.blocked {
            if wanted(self.publishes.front()?.token.0, true) {
                self.counters.published += 1;
                let next = self.publishes.pop_front();
                return next.map(|Outgoing { token, channel, frame }| Output::Publish {
                    token,
                    channel,
                    frame,
                });
            }
            self.publishes.pop_front();
            self.counters.count(Reason::Withdrawn);
        }
        None
    }

    /// Takes back a frame that the bus had no room for, and holds back all others until it has.
    pub(crate) fn block(&mut self, token: Token, channel: Channel, frame: Frame) {
        self.blocked = true;
        self.counters.published = self.counters.published.saturating_sub(1);
        let outgoing = Outgoing { token, channel, frame };
        if planted!(HeldFrameGoesLast) {
            self.publishes.push_back(outgoing);
        } else {
            self.publishes.push_front(outgoing);
        }
    }

    /// Withdraws the frames that are not `wanted` any more. The more are left, the longer until the next time, so that
    /// no more wait than twice what is in flight and looking after them costs little.
    pub(crate) fn withdraw(&mut self, mut wanted: impl FnMut(Publish) -> bool) {
        let Self { publishes, counters, crowded_at, closes, .. } = self;
        publishes.retain(|outgoing| {
            let wanted = wanted(outgoing.token.0);
            if !wanted {
                *closes = closes.saturating_sub(usize::from(outgoing.token.0 == Publish::Close));
                counters.count(Reason::Withdrawn);
            }
            wanted
        });
        *crowded_at = CROWDED.max(2 * publishes.len());
    }

    /// Whether the bus has no room.
    pub(crate) fn is_blocked(&self) -> bool {
        self.blocked
    }

    /// Whether the bus has no room and far too many frames wait for it.
    pub(crate) fn is_overfull(&self) -> bool {
        self.blocked && self.publishes.len() >= OVERFULL
    }

    pub(crate) fn unblock(&mut self) {
        self.blocked = planted!(RoomUnnoticed);
    }
}
