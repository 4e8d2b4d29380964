//! Sinks: the bus's end of a subscription.

use std::fmt;
use std::sync::Arc;

use psrpc_engine::proto::Frame;
use psrpc_engine::{BusError, SubscriptionHandle};

use super::delivery::Delivery;
use super::mailbox::Mailbox;
use super::wake_list::WakeList;

/// The bus's end of a subscription. Dropping it ends the subscription, and wakes the subscriber: no
/// lock may be held then.
///
/// It never blocks. When the subscriber is behind by as many frames as it has room for, the newest frame is lost, with a
/// [gap](Delivery::Gap) in its place; no other subscriber notices. Each function adds the subscriber's task to the
/// [`WakeList`].
pub struct Sink(Option<SinkTarget>);

enum SinkTarget {
    /// The subscriber in a slot of a mailbox.
    Mailbox(Arc<Mailbox>, usize),
    Closure(Box<DeliveryFn>),
}

type DeliveryFn = dyn Fn(Delivery, &mut WakeList) + Send + Sync;

impl Sink {
    /// Returns a sink that calls `take` with each delivery, the last of which is [`Delivery::Ended`]: for a bus that wraps
    /// another and looks at what that delivers. The bus may hold its lock meanwhile, so `take` must neither wait, nor use the
    /// bus, nor wake a task but by the [`WakeList`].
    pub fn new(take: impl Fn(Delivery, &mut WakeList) + Send + Sync + 'static) -> Self {
        Self(Some(SinkTarget::Closure(Box::new(take))))
    }

    /// Returns a sink into a mailbox, with room for so many frames.
    pub(crate) fn into_mailbox(
        mailbox: &Arc<Mailbox>,
        capacity: usize,
        handle: Option<SubscriptionHandle>,
    ) -> Self {
        Self(Some(SinkTarget::Mailbox(Arc::clone(mailbox), mailbox.subscribe(capacity, handle))))
    }

    /// Tells that the subscription is live: for the first time, or again after it was [interrupted](Self::interrupted), which
    /// implies a gap.
    pub fn live(&self, wakes: &mut WakeList) {
        self.put(Delivery::Live, wakes);
    }

    /// Delivers a frame.
    #[inline]
    pub fn deliver(&self, frame: Frame, wakes: &mut WakeList) {
        self.put(Delivery::Frame(frame), wakes);
    }

    /// Delivers a frame for a channel that nobody here subscribed to, where the bus carries several channels in one queue
    /// and this subscription is one of those: a server then answers for the method that it lacks.
    pub fn misrouted(&self, frame: Frame, wakes: &mut WakeList) {
        self.put(Delivery::Misrouted(frame), wakes);
    }

    /// Tells that frames may have been lost here; how many, where that is known.
    pub fn gap(&self, lost: Option<u64>, wakes: &mut WakeList) {
        self.put(Delivery::Gap(lost), wakes);
    }

    /// Tells that a subscription that was live is not now: the connection was lost, or the server
    /// refuses the subscription. A bus may tell it again, once it knows a better cause.
    /// The bus tries again until it is [live](Self::live), or is dropped.
    pub fn interrupted(&self, cause: BusError, wakes: &mut WakeList) {
        self.put(Delivery::Interrupted(cause), wakes);
    }

    /// Ends the subscription: it could not be had, or is lost for good.
    pub fn fail(mut self, error: BusError, wakes: &mut WakeList) {
        self.finish(Some(error), wakes);
    }

    /// Ends the subscription, as was asked for.
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
