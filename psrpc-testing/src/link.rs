//! Links: the destinations of frames, which are the bus or one subscriber.

use std::sync::Arc;

use psrpc::BusError;
use psrpc::bus::{Delivery, Lock, Receipt, Sink, WakeList};
use psrpc::proto::Channel;

/// The destination of frames. Frames keep their order per link.
#[derive(Clone)]
pub(super) enum Link {
    Bus(Channel),
    Subscriber(Arc<Subscriber>),
}

impl Link {
    pub(super) fn channel(&self) -> &Channel {
        match self {
            Link::Bus(channel) => channel,
            Link::Subscriber(subscriber) => &subscriber.channel,
        }
    }

    /// Fails the publish or the subscription.
    pub(super) fn fail(&self, error: BusError, receipt: Receipt) {
        match self {
            Link::Bus(_) => receipt.failed(error),
            Link::Subscriber(subscriber) => subscriber.end(Some(error), &mut WakeList::new()),
        }
    }
}

impl PartialEq for Link {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Link::Bus(this), Link::Bus(other)) => this == other,
            (Link::Subscriber(this), Link::Subscriber(other)) => Arc::ptr_eq(this, other),
            _ => false,
        }
    }
}

/// A subscription through a faulty bus.
pub(super) struct Subscriber {
    pub(super) channel: Channel,
    /// `None` after the subscription has ended.
    sink: Lock<Option<Sink>>,
}

impl Subscriber {
    pub(super) fn new(channel: Channel, sink: Sink) -> Self {
        Self { channel, sink: Lock::new(Some(sink)) }
    }

    /// Passes a delivery to the subscriber. The end of the subscription removes the sink.
    pub(super) fn put(&self, delivery: Delivery, wakes: &mut WakeList) {
        let sink = self.sink.lock();
        let Some(open) = &*sink else { return };
        match delivery {
            Delivery::Live => open.live(wakes),
            Delivery::Frame(frame) => open.deliver(frame, wakes),
            Delivery::Misrouted(frame) => open.misrouted(frame, wakes),
            Delivery::Gap(lost) => open.gap(lost, wakes),
            Delivery::Interrupted(cause) => open.interrupted(cause, wakes),
            Delivery::Ended(error) => {
                drop(sink);
                self.end(error, wakes);
            }
        }
    }

    fn end(&self, error: Option<BusError>, wakes: &mut WakeList) {
        let sink = self.sink.lock().take();
        match (sink, error) {
            (Some(sink), Some(error)) => sink.fail(error, wakes),
            (Some(sink), None) => sink.end(wakes),
            (None, _) => {}
        }
    }
}
