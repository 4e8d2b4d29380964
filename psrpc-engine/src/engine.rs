//! What a client and a server have in common for whoever drives them.

use psrpc_proto::{ErrorResponse, Frame};

use crate::core::budget::Due;
use crate::core::bus_error::BusError;
use crate::core::handle::{StreamHandle, SubscriptionHandle};
use crate::core::outputs::{LentFrame, Output, Token};
use crate::core::time::Now;
use crate::core::timers::Timeout;
use crate::stream::commands::StreamCommands;
use crate::stream::side::Side;

/// The driving contract of a [`Client`](crate::Client) and a [`Server`](crate::Server).
///
/// 1. Call commands and `handle_*` methods as things happen, as many as you like before the next
///    step. They do no I/O and return at once.
/// 2. Call [`poll_output`](Self::poll_output) until it returns `None`, and do what it says, each
///    before the next. Then publish the frames that [`poll_publish`](Self::poll_publish) lends.
///    What the bus says of them may lead to more outputs: repeat until both return `None`.
/// 3. Call [`poll_timeout`](Self::poll_timeout), and [`handle_timeout`](Self::handle_timeout) once
///    that time has come. A call that comes early does nothing. It does a bounded amount of work:
///    while it returns [`Due::More`], repeat steps 2 and 3. Once `handle_timeout(t)` has returned
///    [`Due::Nothing`] and all outputs are taken, the next timeout is later than `t`.
///
/// A command that ends many things at once, such as the close of a client, does the first part
/// itself. The rest is due at once, and [`handle_timeout`](Self::handle_timeout) does it.
///
/// Both clocks of every `now` come from the driver. The monotonic one must not go back; the wall
/// clock may jump. The same seed and the same inputs give the same outputs.
pub trait Engine {
    /// What it tells the layer above.
    type Event;

    /// Which side of streams it is.
    type Side: Side;

    /// A subscription is live, also after it was interrupted, or the bus refused it for good.
    fn handle_subscribed(&mut self, now: Now, subscription: SubscriptionHandle, result: Result<(), BusError>);

    /// A live subscription is interrupted: the bus has lost its connection, or the server refuses
    /// the subscription now. The bus tries again until the subscription is
    /// [live](Self::handle_subscribed) once more, or is left. Frames may be lost meanwhile. A
    /// client fails new calls at once ([`Reason::Interrupted`](crate::Reason::Interrupted));
    /// pending ones go on.
    fn handle_interrupted(&mut self, now: Now, subscription: SubscriptionHandle, cause: BusError);

    /// A subscription has ended: the bus confirmed an unsubscribe, or gave it up. Every frame
    /// delivered until then must have been handed in before.
    fn handle_unsubscribed(&mut self, now: Now, subscription: SubscriptionHandle);

    /// The bus may have lost frames of a subscription; `lost` is how many, where that is known.
    fn handle_gap(&mut self, now: Now, subscription: SubscriptionHandle, lost: Option<u64>);

    /// A frame was published, to so many subscribers where the bus knows, or the bus could not
    /// publish it. Every frame that was [taken](LentFrame::take) ends in one of these: a
    /// response is in flight until it has, or until its request expires.
    fn handle_published(&mut self, now: Now, token: Token, result: Result<Option<u64>, BusError>);

    /// The bus has no room. No frame is lent until [`handle_room`](Self::handle_room), and then the
    /// one that was lent last comes first, unless its call or request is over by then.
    fn handle_full(&mut self);

    /// The bus has room again.
    fn handle_room(&mut self);

    /// A frame came in on a subscription. A [`Frame::Raw`] is decoded first.
    fn handle_frame(&mut self, now: Now, subscription: SubscriptionHandle, frame: Frame);

    /// A frame came in beside a queue subscription: the bus handed it to this member of the queue and to no other, but it
    /// is for a channel that nobody here subscribed to (PROTOCOL section 12). A server answers a request with
    /// `unimplemented`, since its caller would wait for nobody.
    fn handle_misrouted(&mut self, now: Now, subscription: SubscriptionHandle, frame: Frame);

    /// Time has passed: fires the timers that are due, [`ROUND`](crate::ROUND) of them at most.
    fn handle_timeout(&mut self, now: Now) -> Due;

    /// Returns the commands on its streams.
    #[must_use]
    fn stream_commands(&mut self) -> StreamCommands<'_, Self::Side>;

    /// The user of a stream is done with it: a client closes it. At a server its handler is done:
    /// if the stream is still open both sides end, with the handler's error or with "stream
    /// closed", and its handle is stale from here on.
    fn finish_stream(&mut self, now: Now, stream: StreamHandle, result: Result<(), ErrorResponse>);

    /// Nobody will drive this engine any more, since the runtime of its driver has shut down or its
    /// background task is gone. Everything that is pending fails with
    /// [`Reason::RuntimeEnded`](crate::Reason::RuntimeEnded), and so does what comes
    /// later. Take the outputs, and call [`handle_timeout`](Self::handle_timeout) while more is
    /// due; nothing that the bus confirms is waited for.
    fn abandon(&mut self, now: Now);

    /// Returns the next thing to do, frames to publish aside.
    #[must_use]
    fn poll_output(&mut self) -> Option<Output<Self::Event>>;

    /// Lends the next frame to publish. Frames leave in the order in which they came about; events
    /// and subscriptions do not wait for them.
    #[must_use]
    fn poll_publish(&mut self) -> Option<LentFrame<'_>>;

    /// When [`handle_timeout`](Self::handle_timeout) is to be called next, and why.
    #[must_use]
    fn poll_timeout(&self) -> Option<Timeout>;
}
