//! Reasons: why a frame was dropped, a request abandoned or a call failed. Events, counters and
//! errors share this one list.

use core::fmt;
use core::time::Duration;

use psrpc_proto::Text;

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $text:literal;)*) => {
        /// Why a frame was dropped, a request abandoned or a call failed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Reason {
            $($(#[$doc])* $variant,)*
        }

        impl Reason {
            /// Every reason.
            pub const ALL: &'static [Reason] = &[$(Reason::$variant),*];

            /// Returns a short description of the reason.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Reason::$variant => $text,)*
                }
            }
        }
    };
}

reasons! {
    // Dropped frames.

    /// The frame does not decode.
    Malformed = "malformed frame";
    /// The message does not belong on its channel.
    UnexpectedType = "unexpected message type";
    /// The bus delivered the frame only to this engine, which has not subscribed to the frame's
    /// channel.
    Misrouted = "not subscribed to the channel";
    /// A required id is missing.
    MissingId = "missing id";
    /// The frame exceeds a limit of [`FrameLimits`](psrpc_proto::FrameLimits).
    FrameLimit = "frame exceeds a limit";
    /// The request arrived at or after its expiry. A server whose clock is ahead of the client's by
    /// the call's timeout or more drops every call; see [`Dropped::late_by`].
    Expired = "request expired";
    /// The request or stream message has a send time beyond the horizon, or no send time and an
    /// expiry beyond the horizon.
    FarFuture = "sent too far in the future";
    /// The request or stream message arrived before.
    Duplicate = "duplicate request";
    /// Another client has a request in flight with the same id, and a grant could not distinguish
    /// the two; or the request opens a stream whose id is in use.
    IdTaken = "id in use by another request";
    /// The request arrived after the drain timeout of a server that is shutting down, or would open
    /// a stream of a method that is being deregistered.
    Draining = "server is shutting down";
    /// The server already handles as many requests as its concurrency allows.
    Busy = "concurrency limit reached";
    /// The limit on open streams is reached, or the queue for a full bus is too long.
    StreamsFull = "too many open streams";
    /// The limit on requests in flight, or on their bytes, is reached.
    RequestsFull = "too many requests in flight";
    /// The limit on remembered requests is reached.
    DedupFull = "too many requests remembered";
    /// The affinity of the bid is infinite or not a number.
    NonFiniteAffinity = "affinity is not finite";
    /// The server bid for the same call before.
    SecondBid = "second bid from one server";
    /// The limit on bids for one call is reached.
    BidsFull = "too many bids for a call";
    /// The call, request or stream of this bid, response, grant or ack is over, or is not known.
    Late = "late or unknown";
    /// The grant or stream frame is for another server. This is common, so it is counted but not
    /// reported.
    Elsewhere = "for another server";
    /// The server answered the same multi call before.
    SecondResponse = "second response from one server";
    /// The limit on responses to one multi call is reached.
    ResponsesFull = "too many responses to a call";
    /// The stream of the frame is not open here.
    NoStream = "no such stream";
    /// The consumer has no room for the stream message or update, or the queue for a full bus is
    /// too long for the ack of the message.
    SlowConsumer = "discarded by slow consumer";
    /// The stream message arrived at or after its expiry.
    ExpiredMessage = "message expired";
    /// An interceptor rejected the stream message or panicked, or user code no longer holds the
    /// stream.
    Refused = "rejected by an interceptor";
    /// The limit on remembered stream messages is reached.
    MessagesFull = "too many messages remembered";
    /// A second server answered a call that requires no claim: two servers are registered for a
    /// single-server method, and both run each request.
    SecondServer = "answered by two servers";
    /// The response, or stream frame, is from a server that was not selected.
    NotSelected = "response from a server that was not selected";

    // Abandoned requests, and messages that do not decode.

    /// The affinity was below 0.
    NoBid = "no bid";
    /// The client granted the request to another server.
    BidLost = "granted to another server";
    /// The request expired before it could run: no grant came, or the grant came too late.
    NotGranted = "expired without a grant";
    /// The payload does not decode as the method's request.
    MalformedRequest = "request does not decode";
    /// The stream message or update does not decode.
    MalformedMessage = "message does not decode";
    /// The request expired before its handler was done.
    Overran = "expired before the handler was done";
    /// The server was killed.
    Killed = "server killed";

    // Ended streams.

    /// This side closed the stream.
    Closed = "closed by this side";
    /// The other side closed the stream.
    ClosedByPeer = "closed by the other side";
    /// The server shuts down, or stops serving the method.
    Eof = "server is shutting down or stopped serving the method";
    /// The other side was silent for longer than the idle timeout.
    Idle = "idle for too long";

    // Failed calls.

    /// The caller canceled the call.
    Canceled = "canceled by the caller";
    /// The client was closed.
    ClientClosed = "client closed";
    /// The client's or server's runtime has shut down, or its background task has ended.
    RuntimeEnded = "runtime has shut down";
    /// The deadline passed without a response: the selected server did not answer, no server was
    /// selected although bids came, or, if no claim is required, no server answered.
    TimedOut = "no response before the deadline";
    /// No server bid.
    NoResponse = "no server bid";
    /// The bus delivered the request to no subscriber, as far as it knows.
    NobodySubscribed = "nobody is subscribed";
    /// Servers bid, but no bid was acceptable.
    NotAcceptable = "no bid was acceptable";
    /// The selection function failed, or chose a server that had not bid.
    SelectionFailed = "selection function failed";
    /// A server answered with an error.
    Answered = "answered with an error";
    /// The response does not decode as the method's response.
    MalformedResult = "response does not decode";

    // General reasons.

    /// The server was closed.
    ServerClosed = "server closed";
    /// The bus may have lost frames.
    Gap = "frames may be missing";
    /// The bus failed to publish a frame.
    PublishFailed = "publish failed";
    /// The client's subscriptions are interrupted, so it would miss the response.
    Interrupted = "subscription interrupted";
    /// The bus gave up a subscription.
    SubscriptionLost = "subscription lost";
    /// The frame was withdrawn before the bus took it: it was no longer needed, or the queue for a
    /// full bus was too long.
    Withdrawn = "withdrawn before it was published";
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A dropped frame, and the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// The reason.
    pub reason: Reason,
    /// The call that the frame names; empty if unknown.
    pub request_id: Text,
    /// The peer, or the stream, that the frame names; empty if unknown.
    pub peer: Text,
    /// How late an expired frame was, or how far in the future a frame was sent
    /// ([`Reason::FarFuture`]). A large value is a sign of skewed clocks.
    pub late_by: Duration,
}

impl Dropped {
    pub(crate) fn of(reason: Reason, request_id: Text, peer: Text) -> Self {
        Self { reason, request_id, peer, late_by: Duration::ZERO }
    }
}

/// Counters of an engine since it was created.
#[derive(Clone, PartialEq, Eq)]
pub struct Counters {
    reasons: [u64; Reason::ALL.len()],
    /// Frames received.
    pub frames: u64,
    /// Frames published.
    pub published: u64,
    /// Frames that the bus reported lost, and updates dropped because their consumer had no room. A
    /// gap of unknown size counts as one.
    pub lost: u64,
}

impl Counters {
    pub(crate) const fn new() -> Self {
        Self { reasons: [0; Reason::ALL.len()], frames: 0, published: 0, lost: 0 }
    }

    pub(crate) fn count(&mut self, reason: Reason) {
        let count = &mut self.reasons[reason as usize];
        *count = count.saturating_add(1);
    }

    /// Counts lost frames. A gap of unknown size counts as one.
    pub(crate) fn count_lost(&mut self, frames: Option<u64>) {
        self.lost = self.lost.saturating_add(frames.unwrap_or(1));
    }

    /// Returns how often `reason` dropped a frame, abandoned a request or failed a call.
    pub fn get(&self, reason: Reason) -> u64 {
        self.reasons[reason as usize]
    }

    /// Returns the reasons that occurred, each with its count.
    pub fn reasons(&self) -> impl Iterator<Item = (Reason, u64)> {
        Reason::ALL.iter().map(|reason| (*reason, self.get(*reason))).filter(|(_, count)| *count > 0)
    }
}

impl fmt::Debug for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut map = f.debug_map();
        map.entry(&"frames", &self.frames).entry(&"published", &self.published).entry(&"lost", &self.lost);
        map.entries(self.reasons().map(|(reason, count)| (reason.as_str(), count))).finish()
    }
}
