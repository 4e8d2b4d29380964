//! Sinks, through which a bus delivers to a subscriber.

use std::fmt;
use std::sync::Arc;

use psrpc_engine::proto::Frame;
use psrpc_engine::{BusError, SubscriptionHandle};

use super::delivery::Delivery;
use super::mailbox::Mailbox;
use super::wake_list::WakeList;

/// The bus's end of a subscription. Dropping it ends the subscription and wakes the subscriber, so
/// no lock may be held at that time.
///
/// A sink never blocks. If the subscriber has no room, the newest frame is lost and replaced by a
/// [gap](Delivery::Gap); other subscribers are not affected. Each function adds the subscriber's
/// task to the [`WakeList`].
pub struct Sink(Option<SinkTarget>);

enum SinkTarget {
    /// A mailbox, and the subscriber's slot in it.
    Mailbox(Arc<Mailbox>, usize),
    Closure(Box<DeliveryFn>),
}

type DeliveryFn = dyn Fn(Delivery, &mut WakeList) + Send + Sync;

impl Sink {
    /// Returns a sink that calls `take` with each delivery; the last one is [`Delivery::Ended`].
    /// For a bus that wraps another and inspects its deliveries.
    ///
    /// The bus may hold its lock during the call. So `take` must not block, must not use the bus,
    /// and may wake tasks only through the [`WakeList`].
    pub fn new(take: impl Fn(Delivery, &mut WakeList) + Send + Sync + 'static) -> Self {
        Self(Some(SinkTarget::Closure(Box::new(take))))
    }

    /// Returns a sink into a mailbox, with room for `capacity` frames.
    pub(crate) fn into_mailbox(
        mailbox: &Arc<Mailbox>,
        capacity: usize,
        handle: Option<SubscriptionHandle>,
    ) -> Self {
        Self(Some(SinkTarget::Mailbox(Arc::clone(mailbox), mailbox.subscribe(capacity, handle))))
    }

    /// Reports that the subscription is live: for the first time, or again after it was
    /// [interrupted](Self::interrupted). The latter implies a gap.
    pub fn live(&self, wakes: &mut WakeList) {
        self.put(Delivery::Live, wakes);
    }

    /// Delivers a frame.
    #[inline]
    pub fn deliver(&self, frame: Frame, wakes: &mut WakeList) {
        self.put(Delivery::Frame(frame), wakes);
    }

    /// Delivers a frame for a channel that this process does not subscribe to, on a bus that
    /// carries several channels in one queue. The server that receives it responds that it lacks
    /// the method.
    pub fn misrouted(&self, frame: Frame, wakes: &mut WakeList) {
        self.put(Delivery::Misrouted(frame), wakes);
    }

    /// Reports that frames may have been lost here, and their number, if it is known.
    pub fn gap(&self, lost: Option<u64>, wakes: &mut WakeList) {
        self.put(Delivery::Gap(lost), wakes);
    }

    /// Reports that a live subscription was interrupted, because the connection was lost or the
    /// server refuses the subscription. A bus may call it again when it learns a better cause.
    ///
    /// The bus keeps trying until the subscription is [live](Self::live) again or dropped.
    pub fn interrupted(&self, cause: BusError, wakes: &mut WakeList) {
        self.put(Delivery::Interrupted(cause), wakes);
    }

    /// Ends the subscription because the bus could not subscribe, or lost the subscription for
    /// good.
    pub fn fail(mut self, error: BusError, wakes: &mut WakeList) {
        self.finish(Some(error), wakes);
    }

    /// Ends the subscription because the subscriber asked for it.
    pub fn end(mut self, wakes: &mut WakeList) {
        self.finish(None, wakes);
    }

    fn finish(&mut self, error: Option<BusError>, wakes: &mut WakeList) {
        let Some(target) = self.0.take() else { return };
        target.put(Delivery::Ended(error), wakes);
        if let SinkTarget::Closure(take) = target {
            wakes.discard(take);
        }
    }

    #[inline]
    pub(crate) fn put(&self, delivery: Delivery, wakes: &mut WakeList) {
        if let Some(target) = &self.0 {
            target.put(delivery, wakes);
        }
    }
}

impl SinkTarget {
    #[inline]
    fn put(&self, delivery: Delivery, wakes: &mut WakeList) {
        match self {
            SinkTarget::Mailbox(mailbox, slot) => mailbox.put(*slot, delivery, wakes),
            SinkTarget::Closure(take) => take(delivery, wakes),
        }
    }
}

impl fmt::Debug for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sink").finish_non_exhaustive()
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.finish(None, &mut WakeList::new());
    }
}
