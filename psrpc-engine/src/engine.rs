//! The interface through which a driver runs a client or a server.

use psrpc_proto::{ErrorResponse, Frame};

use crate::core::budget::Due;
use crate::core::bus_error::BusError;
use crate::core::handle::{StreamHandle, SubscriptionHandle};
use crate::core::outputs::{LentFrame, Output, Token};
use crate::core::time::Now;
use crate::core::timers::Timeout;
use crate::stream::commands::StreamCommands;
use crate::stream::side::Side;

/// The contract between an engine (a [`Client`](crate::Client) or a [`Server`](crate::Server)) and
/// its driver.
///
/// 1. Call commands and `handle_*` methods as things happen, as many as you like before the next
///    step. They do no I/O and return at once.
/// 2. Call [`poll_output`](Self::poll_output) until it returns `None`, carrying out each output
///    before you poll the next. Then publish the frames that [`poll_publish`](Self::poll_publish)
///    lends. Reporting the results may lead to more outputs: repeat until both return `None`.
/// 3. Call [`poll_timeout`](Self::poll_timeout), and call [`handle_timeout`](Self::handle_timeout)
///    once that time has come. An early call does nothing. Each call does a bounded amount of work:
///    while it returns [`Due::More`], repeat steps 2 and 3. Once `handle_timeout(t)` has returned
///    [`Due::Nothing`] and all outputs are taken, the next timeout is later than `t`.
///
/// A command that ends many things at once, such as closing a client, does the first part itself.
/// The rest is due at once in [`handle_timeout`](Self::handle_timeout).
///
/// The driver reads both clocks for each `now`. The monotonic clock must not go back; the wall
/// clock may jump. The same seed and the same inputs give the same outputs.
pub trait Engine {
    /// The events for the layer above.
    type Event;

    /// The engine's side of streams.
    type Side: Side;

    /// Reports that a subscription is live, for the first time or again after an interruption, or
    /// that the bus refused it for good.
    fn handle_subscribed(&mut self, now: Now, subscription: SubscriptionHandle, result: Result<(), BusError>);

    /// Reports that a live subscription is interrupted: the bus lost its connection, or the bus's
    /// server currently refuses the subscription. The bus retries until the subscription is
    /// [live](Self::handle_subscribed) again or the engine unsubscribes. Frames may be lost
    /// meanwhile. A client fails new calls at once
    /// ([`Reason::Interrupted`](crate::Reason::Interrupted)), unless only subscriptions to updates
    /// are interrupted. Calls in flight go on.
    fn handle_interrupted(&mut self, now: Now, subscription: SubscriptionHandle, cause: BusError);

    /// Reports that a subscription has ended: the bus confirmed an unsubscribe, or gave the
    /// subscription up. The driver must have handed in every frame delivered until then.
    fn handle_unsubscribed(&mut self, now: Now, subscription: SubscriptionHandle);

    /// Reports that the bus may have lost frames of a subscription: `lost` frames, or `None` if the
    /// number is unknown.
    fn handle_gap(&mut self, now: Now, subscription: SubscriptionHandle, lost: Option<u64>);

    /// Reports the result of a publish: the number of subscribers that the frame reached, if the
    /// bus knows it, or the error. Report one result for every frame that was
    /// [taken](LentFrame::take): a response stays in flight until then, or until its request
    /// expires.
    fn handle_published(&mut self, now: Now, token: Token, result: Result<Option<u64>, BusError>);

    /// Reports that the bus has no room. The engine lends no frame until
    /// [`handle_room`](Self::handle_room). It then lends the same frame first, unless the frame is
    /// no longer needed.
    fn handle_full(&mut self);

    /// Reports that the bus has room again.
    fn handle_room(&mut self);

    /// Handles a frame from a subscription. A [`Frame::Raw`] is decoded first.
    fn handle_frame(&mut self, now: Now, subscription: SubscriptionHandle, frame: Frame);

    /// Handles a frame that the bus delivered only to this member of a queue group, although the
    /// engine has not subscribed to the frame's channel (PROTOCOL section 12). A server answers
    /// such a request with `unimplemented`, because no other server will.
    fn handle_misrouted(&mut self, now: Now, subscription: SubscriptionHandle, frame: Frame);

    /// Fires the timers that are due, at most [`ROUND`](crate::ROUND) of them.
    fn handle_timeout(&mut self, now: Now) -> Due;

    /// Returns the commands on the engine's streams.
    #[must_use]
    fn stream_commands(&mut self) -> StreamCommands<'_, Self::Side>;

    /// Ends the local use of a stream. If the stream is still open, it closes on both sides, with
    /// the error of `result` or with "stream closed". On a server, call this when the stream's
    /// handler is done. The handle is stale from here on.
    fn finish_stream(&mut self, now: Now, stream: StreamHandle, result: Result<(), ErrorResponse>);

    /// Fails everything in flight with [`Reason::RuntimeEnded`](crate::Reason::RuntimeEnded),
    /// because the driver's runtime has shut down or its background task has ended. Later calls,
    /// registrations and updates fail for the same reason. Take the outputs, and call
    /// [`handle_timeout`](Self::handle_timeout) while more is due; the engine does not wait for the
    /// bus.
    fn abandon(&mut self, now: Now);

    /// Returns the next output, other than frames to publish.
    #[must_use]
    fn poll_output(&mut self) -> Option<Output<Self::Event>>;

    /// Lends the next frame to publish. Frames leave in the order in which they were queued; events
    /// and subscriptions do not wait for them.
    #[must_use]
    fn poll_publish(&mut self) -> Option<LentFrame<'_>>;

    /// Returns when to call [`handle_timeout`](Self::handle_timeout) next, and why.
    #[must_use]
    fn poll_timeout(&self) -> Option<Timeout>;
}
