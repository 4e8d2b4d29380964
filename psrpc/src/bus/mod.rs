//! The bus: what psrpc needs of a message bus.
//!
//! A bus never waits: [`Bus::publish`] takes a frame and its place in the order, and says what it
//! knows at once or later, by a [`Receipt`]; [`Bus::subscribe`] fills a [`Sink`]. Both may come
//! from any thread. So a bus needs no executor, and no queue lies between a call and the bus.
//!
//! A client or server calls both under its own lock. Nothing that runs foreign code may happen there: tasks are woken later,
//! by the [`WakeList`] that both are given. A bus keeps the same rule for its own lock, which [`Lock`] checks in debug builds.

mod delivery;
mod event;
mod inbox;
pub(crate) mod mailbox;
mod monitor;
mod offer;
mod publish;
mod receipt;
mod round_robin;
mod sink;
mod wake_list;

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use psrpc_engine::SubscriptionKind;
use psrpc_engine::proto::Channel;

pub use self::delivery::Delivery;
pub use self::event::BusEvent;
pub use self::inbox::Inbox;
pub use self::monitor::{Monitor, Status, Watcher};
pub use self::offer::{Accepted, Full, Offer};
pub use self::publish::{PublishFuture, publish};
pub use self::receipt::{Receipt, ReplyTo};
pub use self::round_robin::RoundRobin;
pub use self::sink::Sink;
pub use self::wake_list::WakeList;
pub use crate::sync::{Lock, LockGuard, assert_unlocked};

/// A message bus.
///
/// A bus uses one of the names of a [`Channel`] to tell channels apart, and either hands frames
/// over as they are (within a process) or encodes them
/// ([`Frame::encode`](crate::proto::Frame::encode)) and decodes them
/// ([`Frame::decode`](crate::proto::Frame::decode)). A frame that does not decode is delivered all
/// the same, as a [`Frame::Raw`](crate::proto::Frame::Raw): its subscriber counts it, with the
/// reason.
///
/// # Order
///
/// Frames that were accepted for a channel leave in the order in which they were accepted, and
/// reach each subscriber in that order as far as the bus keeps one. A frame that is large enough to
/// be encoded on its own may be overtaken by frames for other channels.
///
/// # Writing one
///
/// [`publish`](Self::publish) and [`subscribe`](Self::subscribe) are called under the lock of a
/// client or server. They return at once, and neither wake a task nor encode nor compress. The
/// other functions have defaults.
pub trait Bus: Send + Sync + 'static {
    /// Publishes a frame on a channel.
    ///
    /// Returns at once. A bus that accepts the frame [takes](Offer::take) it, keeps its place in
    /// the order, and says what it knows; if that is not the result, it tells that later
    /// ([`Accepted::Later`]). Encoding comes after this has returned. A publish fails when the
    /// bus knows that it failed; a frame that was published and may be lost on the way is
    /// [done](Accepted::Done). A frame must not wait without end for a connection to come back:
    /// fail it instead. A frame that the bus accepts without taking it is dropped.
    ///
    /// # Errors
    ///
    /// [`Full`], before it has done any work, when the bus has no room for the frame now; [`poll_ready`](Self::poll_ready) tells
    /// when to try again.
    fn publish(&self, offer: Offer<'_>, wakes: &mut WakeList) -> Result<Accepted, Full>;

    /// Ready when [`publish`](Self::publish) has room; otherwise wakes the task once it has, and every other task that
    /// asked. A bus that is never full need not implement it; one that wraps another must pass it on.
    fn poll_ready(&self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }

    /// Subscribes to a channel.
    ///
    /// Returns at once: `sink` is told when the subscription is [live](Sink::live), that is, when
    /// the next frame that anybody publishes will reach it, then every frame, and where frames
    /// may be missing a [gap](Sink::gap).
    ///
    /// If the subscription cannot be had, [`Sink::fail`] says why. Once it was live, the bus does
    /// not give it up: when the connection is lost, or the server refuses the subscription, it
    /// is [interrupted](Sink::interrupted), and the bus subscribes again, with a back-off of at
    /// most 1 s, until it is live or dropped.
    ///
    /// Dropping the returned [`Subscription`] unsubscribes. The bus delivers until the end of the
    /// subscription is confirmed, and then drops or [ends](Sink::end) `sink`: that is how the
    /// subscriber learns that nothing more will come.
    fn subscribe(
        &self,
        channel: &Channel,
        kind: SubscriptionKind,
        sink: Sink,
        wakes: &mut WakeList,
    ) -> Subscription;

    /// Returns the monitor of the bus's connection; `None` if it has no connection that could be
    /// lost. A bus that wraps another must pass it on.
    fn monitor(&self) -> Option<&Monitor> {
        None
    }

    /// Returns how the bus is. [`Monitor::connected`] awaits a connection, [`Monitor::watch`] gives
    /// the events.
    fn status(&self) -> Status {
        self.monitor().map_or(Status::Connected, Monitor::status)
    }

    /// Returns `true` if the bus hands frames over within the process. Clients then tell servers
    /// when a call is canceled, so that its handler stops; elsewhere handlers run on to their
    /// deadlines, since the protocol has no cancellation. A bus that wraps another must pass it
    /// on.
    fn is_in_process(&self) -> bool {
        false
    }

    /// Returns what tells this bus from others of the process, the same for all clones of it;
    /// `None` if it does not say. Used to detect two servers registered for one single-server
    /// topic. A bus that wraps another must pass it on.
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
    fn publish(&self, offer: Offer<'_>, wakes: &mut WakeList) -> Result<Accepted, Full> {
        (**self).publish(offer, wakes)
    }

    fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        (**self).poll_ready(cx)
    }

    fn subscribe(
        &self,
        channel: &Channel,
        kind: SubscriptionKind,
        sink: Sink,
        wakes: &mut WakeList,
    ) -> Subscription {
        (**self).subscribe(channel, kind, sink, wakes)
    }

    fn monitor(&self) -> Option<&Monitor> {
        (**self).monitor()
    }

    fn is_in_process(&self) -> bool {
        (**self).is_in_process()
    }

    fn id(&self) -> Option<BusId> {
        (**self).id()
    }
}

/// A subscription: dropping it unsubscribes, which may wake tasks. No lock may be held then.
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
            assert_unlocked("a subscription is dropped");
            unsubscribe();
        }
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").finish_non_exhaustive()
    }
}
