//! The [`Bus`] trait: the interface that psrpc needs from a message bus.
//!
//! A bus never blocks. [`Bus::publish`] takes a frame and returns its result at once, or later
//! through a [`Receipt`]. [`Bus::subscribe`] fills a [`Sink`]. Both may be called from any thread,
//! so a bus needs no executor, and there is no queue between a call and the bus.
//!
//! Clients and servers call both functions while they hold their own lock. No foreign code may run
//! under it, so both functions take a [`WakeList`]: the tasks in it are woken after the lock is
//! released. A bus follows the same rule for its own lock, which [`Lock`] checks in debug builds.

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
/// A bus tells channels apart by one of the names of a [`Channel`]. It passes frames on as they are
/// (within a process), or encodes them ([`Frame::encode`](crate::proto::Frame::encode)) and decodes
/// them ([`Frame::decode`](crate::proto::Frame::decode)). If a frame does not decode, the bus
/// delivers a [`Frame::Raw`](crate::proto::Frame::Raw), and the subscriber drops it and counts the
/// reason.
///
/// # Order
///
/// A bus sends the frames of a channel in the order in which it accepted them. Each subscriber
/// receives them in that order, as far as the bus guarantees one. A frame that is large enough to
/// be encoded separately may be overtaken by frames for other channels.
///
/// # Implementing a bus
///
/// [`publish`](Self::publish) and [`subscribe`](Self::subscribe) are called under the lock of a
/// client or server. They must return at once, and must not wake tasks, encode or compress. All
/// other functions have defaults.
pub trait Bus: Send + Sync + 'static {
    /// Publishes a frame on a channel.
    ///
    /// Returns at once. A bus that accepts the frame [takes](Offer::take) it and keeps its place in
    /// the order. If the result is not known yet, the bus returns [`Accepted::Later`] and reports
    /// it through the [`Receipt`]. Encode the frame only after returning.
    ///
    /// Report a failure if the frame was not published, or if the connection was lost before the
    /// server confirmed it. A frame that was published but may be lost on the way counts as
    /// [done](Accepted::Done). Do not hold a frame indefinitely while the connection is down; fail
    /// it instead. A frame that the bus accepts without taking it is dropped.
    ///
    /// # Errors
    ///
    /// Returns [`Full`], without side effects, if the bus has no room for the frame now. The caller
    /// then waits for [`poll_ready`](Self::poll_ready).
    fn publish(&self, offer: Offer<'_>, wakes: &mut WakeList) -> Result<Accepted, Full>;

    /// Returns `Ready` if [`publish`](Self::publish) has room. Otherwise registers the task and
    /// wakes it, along with every other registered task, once there is room.
    ///
    /// A bus that is never full can keep the default. A bus that wraps another must forward the
    /// call.
    fn poll_ready(&self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }

    /// Subscribes to a channel.
    ///
    /// Returns at once, and reports to `sink`: first that the subscription is [live](Sink::live),
    /// which means that it receives every frame published from now on; then each frame, and a
    /// [gap](Sink::gap) wherever frames may be missing.
    ///
    /// If the bus cannot subscribe, it calls [`Sink::fail`] with the reason. It never gives up a
    /// subscription that has been live. If the connection is lost or the server refuses the
    /// subscription, the bus [interrupts](Sink::interrupted) the sink and subscribes again, with a
    /// back-off of at most 1 s, until the subscription is live or dropped.
    ///
    /// Dropping the returned [`Subscription`] unsubscribes. The bus keeps delivering until the
    /// server has confirmed the end, and then drops or [ends](Sink::end) `sink`, which tells the
    /// subscriber that nothing more will come.
    fn subscribe(
        &self,
        channel: &Channel,
        kind: SubscriptionKind,
        sink: Sink,
        wakes: &mut WakeList,
    ) -> Subscription;

    /// Returns the monitor of the bus's connection, or `None` if there is no connection to lose.
    ///
    /// A bus that wraps another must forward the call.
    fn monitor(&self) -> Option<&Monitor> {
        None
    }

    /// Returns the status of the bus. To wait for a connection, use [`Monitor::connected`]; to
    /// receive events, [`Monitor::watch`].
    fn status(&self) -> Status {
        self.monitor().map_or(Status::Connected, Monitor::status)
    }

    /// Returns `true` if the bus passes frames on within the process.
    ///
    /// Clients on such a bus tell servers when a call is canceled, and the servers stop its
    /// handler. On any other bus a handler runs on until its deadline, since the protocol has no
    /// cancellation. A bus that wraps another must forward the call.
    fn is_in_process(&self) -> bool {
        false
    }

    /// Returns an id that distinguishes this bus from others in the process, or `None` if it has
    /// none. All clones of a bus share one id.
    ///
    /// Used to detect two servers registered for one single-server topic. A bus that wraps another
    /// must forward the call.
    fn id(&self) -> Option<BusId> {
        None
    }
}

/// The id of a bus, unique within the process while the bus lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BusId(usize);

impl BusId {
    /// Returns the id of a bus whose clones share `shared`.
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

/// A handle to a subscription. Dropping it unsubscribes, which may wake tasks, so no lock may be
/// held at that time.
#[must_use = "dropping it unsubscribes"]
pub struct Subscription(Option<Box<dyn FnOnce() + Send>>);

impl Subscription {
    /// Returns a subscription that calls `unsubscribe` when it is dropped.
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
