//! The bus: what psrpc needs of a message bus.
//!
//! Everything a bus is asked for returns at once. What comes of it is reported through the [`Receipt`] of a publish and
//! the [`Sink`] of a subscription, from any thread, also before the asking has returned. So a bus needs no executor,
//! and nothing waits in a queue between a call and the bus.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use psrpc_engine::proto::{Channel, Frame};
use psrpc_engine::{BusError, SubscriptionKind, Token};

use crate::inbox::Queue;
pub use crate::inbox::{Delivery, Inbox, Sink};

/// A message bus.
///
/// A bus uses one of the names of a [`Channel`] to tell channels apart, and either hands frames over as they are (within
/// a process) or encodes them ([`Frame::encode`]) and decodes them ([`Frame::decode`]). A frame that does not decode is
/// delivered all the same, as a [`Frame::Raw`]: whoever gets it counts it, with the reason.
///
/// # Order
///
/// Frames that one caller publishes on a channel reach each subscriber in that order, as far as the bus keeps one.
pub trait Bus: Send + Sync + 'static {
    /// Publishes a frame on a channel.
    ///
    /// Returns at once: the frame is accepted, and `receipt` is told what became of it. It fails when the bus knows that
    /// it failed; a frame that was published and may be lost on the way is [published](Receipt::published). A frame must
    /// not wait without end for a connection to come back: fail it instead.
    ///
    /// # Errors
    ///
    /// [`Full`], with the frame, when the bus has no room for it now; [`poll_room`](Self::poll_room) tells when to try
    /// again.
    fn publish(&self, channel: &Channel, frame: Frame, receipt: Receipt) -> Result<(), Box<Full>>;

    /// Ready when [`publish`](Self::publish) has room; otherwise wakes the task once it has, and every other task that
    /// asked. A bus that is never full need not implement it; one that wraps another must pass it on.
    fn poll_room(&self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }

    /// Subscribes to a channel.
    ///
    /// Returns at once: `sink` is told when the subscription is [live](Sink::live), that is, when the next frame that
    /// anybody publishes will reach it, then every frame, and where frames may be missing a [gap](Sink::gap). A bus that
    /// reconnects subscribes again by itself and reports a gap.
    ///
    /// Dropping the returned [`Subscription`] unsubscribes. The bus delivers until the end of the subscription is
    /// confirmed, and then drops `sink`: that is how the subscriber learns that nothing more will come. If the
    /// subscription cannot be had, or is lost for good, [`Sink::fail`] says why.
    fn subscribe(&self, channel: &Channel, kind: SubscriptionKind, sink: Sink) -> Subscription;

    /// Whether it hands frames over within the process. Clients then tell servers when a call is canceled, so that its handler stops;
    /// elsewhere handlers run on to their deadlines, since the protocol has no cancellation. A bus that wraps another must pass it
    /// on.
    fn is_in_process(&self) -> bool {
        false
    }

    /// What tells this bus from others of the process, the same for all clones of it; `None` if it does not say. By it two servers
    /// are noticed that serve what one alone should. A bus that wraps another must pass it on.
    fn id(&self) -> Option<BusId> {
        None
    }
}

/// Tells a bus from others of the process, as long as it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BusId(usize);

impl BusId {
    /// The id of a bus whose clones share this.
    pub fn of<T: ?Sized>(shared: &Arc<T>) -> Self {
        Self(Arc::as_ptr(shared).cast::<()>().addr())
    }
}

impl<B: Bus + ?Sized> Bus for Arc<B> {
    fn publish(&self, channel: &Channel, frame: Frame, receipt: Receipt) -> Result<(), Box<Full>> {
        (**self).publish(channel, frame, receipt)
    }

    fn poll_room(&self, cx: &mut Context<'_>) -> Poll<()> {
        (**self).poll_room(cx)
    }

    fn subscribe(&self, channel: &Channel, kind: SubscriptionKind, sink: Sink) -> Subscription {
        (**self).subscribe(channel, kind, sink)
    }

    fn is_in_process(&self) -> bool {
        (**self).is_in_process()
    }

    fn id(&self) -> Option<BusId> {
        (**self).id()
    }
}

/// A frame that the bus had no room for, given back with its receipt.
pub struct Full {
    /// The frame.
    pub frame: Frame,
    /// Its receipt, unused.
    pub receipt: Receipt,
}

impl fmt::Debug for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Full").field("frame", &self.frame).finish_non_exhaustive()
    }
}

/// Takes what became of a published frame. Dropped without a word it reports a failure.
pub struct Receipt(Option<Target>);

enum Target {
    Driver { queue: Arc<Queue>, token: Token },
    Closure(Box<dyn FnOnce(Result<Option<u64>, BusError>) + Send>),
}

impl Receipt {
    /// A receipt that calls `report` with the number of subscribers that got the frame, where the bus knows, or with why
    /// it was not published.
    pub fn new(report: impl FnOnce(Result<Option<u64>, BusError>) + Send + 'static) -> Self {
        Self(Some(Target::Closure(Box::new(report))))
    }

    pub(crate) fn driver(queue: Arc<Queue>, token: Token) -> Self {
        Self(Some(Target::Driver { queue, token }))
    }

    /// The frame was published, and handed to so many subscribers where the bus knows.
    pub fn published(mut self, receivers: Option<u64>) {
        self.report(Ok(receivers));
    }

    /// The frame was not published.
    pub fn failed(mut self, error: BusError) {
        self.report(Err(error));
    }

    /// Gives up the receipt of a frame that was not accepted.
    pub(crate) fn withdraw(mut self) {
        self.0 = None;
    }

    fn report(&mut self, result: Result<Option<u64>, BusError>) {
        match self.0.take() {
            Some(Target::Driver { queue, token }) => queue.published((token, result)),
            Some(Target::Closure(report)) => report(result),
            None => {}
        }
    }
}

impl fmt::Debug for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receipt").finish_non_exhaustive()
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        if self.0.is_some() {
            self.report(Err(BusError::new("the bus dropped the frame without a reason")));
        }
    }
}

/// A subscription: dropping it unsubscribes.
#[must_use = "dropping it unsubscribes"]
pub struct Subscription(Option<Box<dyn FnOnce() + Send>>);

impl Subscription {
    /// A subscription that ends by calling `unsubscribe`.
    pub fn new(unsubscribe: impl FnOnce() + Send + 'static) -> Self {
        Self(Some(Box::new(unsubscribe)))
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if let Some(unsubscribe) = self.0.take() {
            unsubscribe();
        }
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").finish_non_exhaustive()
    }
}
