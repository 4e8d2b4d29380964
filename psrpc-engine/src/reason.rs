//! Reasons: why a frame was dropped, a request abandoned or a call failed. One list, which
//! everything that reports speaks.

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

            /// The reason in a few words.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Reason::$variant => $text,)*
                }
            }
        }
    };
}

reasons! {
    // Frames of a peer that are dropped.

    /// A frame that does not decode.
    Malformed = "malformed frame";
    /// A message that has no business on its channel.
    UnexpectedType = "unexpected type of message";
    /// A frame for a channel that nobody here subscribed to, which the bus handed to nobody else either.
    Misrouted = "nobody here takes it";
    /// A frame without an id that it needs.
    MissingId = "missing id";
    /// A frame beyond a limit of [`FrameLimits`](psrpc_proto::FrameLimits).
    FrameLimit = "frame over a limit";
    /// A request at or past its expiry. With skewed clocks this drops every call; see
    /// [`Dropped::late_by`].
    Expired = "request expired";
    /// A request that was sent further ahead than the horizon, or that does not say when it was
    /// sent and expires further ahead than that.
    FarFuture = "request from the far future";
    /// A request that came before.
    Duplicate = "duplicate request";
    /// A request with the id of another client's request in flight, which a grant could not tell
    /// from it.
    IdTaken = "request id of another client's request";
    /// A request that the bus delivered though the server has been shutting down for longer than it
    /// waits for the bus.
    Draining = "server is shutting down";
    /// A request beyond the number that the server runs at a time.
    Busy = "server runs as many requests as it may";
    /// A stream beyond the limit on open streams.
    StreamsFull = "too many open streams";
    /// A request beyond the limit on requests in flight.
    RequestsFull = "too many requests in flight";
    /// A request beyond the limit on requests remembered.
    DedupFull = "too many requests remembered";
    /// A bid with an affinity that is infinite or not a number.
    NonFiniteAffinity = "affinity is not finite";
    /// A second bid of one server for one call.
    SecondBid = "second bid of a server";
    /// A bid beyond the limit on bids for one call.
    BidsFull = "too many bids for a call";
    /// A bid, a response or a grant for what is over, or never was.
    Late = "too late, or for nothing known";
    /// A grant of a request, or a message of a stream, that is at another server: most are. Only
    /// counted.
    Elsewhere = "for another server";
    /// A second answer of one server to a multi call.
    SecondResponse = "second answer of a server";
    /// An answer beyond the limit on those to one multi call.
    ResponsesFull = "too many answers to a call";
    /// A message for a stream that is not open here.
    NoStream = "no such stream";
    /// A message of a stream, or an update, for which its consumer has no room.
    SlowConsumer = "discarded by slow consumer";
    /// A message of a stream that came at its expiry or after it.
    ExpiredMessage = "message expired";
    /// A message of a stream that an interceptor refused.
    Refused = "refused by an interceptor";
    /// A message of a stream beyond the limit on messages remembered.
    MessagesFull = "too many messages remembered";
    /// A response of a second server to a call that requires no claim: two servers have registered
    /// for what one alone should serve, and both run each request.
    SecondServer = "answered by two servers";
    /// A response from a server that was not selected.
    NotSelected = "response from a server that was not selected";

    // Requests that a server abandons.

    /// Its affinity was below 0.
    NoBid = "no bid";
    /// The client granted it to another server.
    BidLost = "granted to another server";
    /// It expired before the client granted it.
    NotGranted = "expired without a grant";
    /// Its payload does not decode as the message of the method.
    MalformedRequest = "request does not decode";
    /// A message of a stream, or an update, that does not decode.
    MalformedMessage = "message does not decode";
    /// It expired before the handler was done.
    Overran = "handler ran past the expiry";
    /// The server was killed.
    Killed = "server killed";

    // Streams that end.

    /// This side closed it.
    Closed = "closed by this side";
    /// The other side closed it.
    ClosedByPeer = "closed by the other side";
    /// The server that has it shuts down, or stops to serve its method.
    Eof = "server is shutting down or stopped to serve the method";
    /// Nothing was heard of the other side for as long as a stream may be idle.
    Idle = "nothing heard for too long";

    // Calls that fail.

    /// The caller canceled it.
    Canceled = "canceled by the caller";
    /// The client was closed.
    ClientClosed = "client closed";
    /// The runtime that the client or server was created on has shut down, or its background task
    /// is gone.
    RuntimeEnded = "runtime has shut down";
    /// The deadline passed before the response came: while a server had it, before a server was
    /// picked though bids had come, or, where no claim is required, without anybody answering.
    TimedOut = "no response before the deadline";
    /// No bid came for it.
    NoResponse = "no bid came";
    /// Servers bid, and none of their bids could win.
    NotAcceptable = "no bid was acceptable";
    /// The selection function failed or chose a server that had not bid.
    SelectionFailed = "selection function failed";
    /// A server answered with an error.
    Answered = "answered with an error";
    /// The response does not decode as the message of the method.
    MalformedResult = "response does not decode";

    // Any of them.

    /// The server was closed.
    ServerClosed = "server closed";
    /// The bus may have lost frames.
    Gap = "frames may be missing";
    /// The bus did not take a frame.
    PublishFailed = "publish failed";
    /// The client's subscriptions are interrupted, so that it would miss the answer.
    Interrupted = "subscription interrupted";
    /// The bus gave up a subscription.
    SubscriptionLost = "subscription lost";
    /// The call or request was over before its frame could be handed to the bus.
    Withdrawn = "withdrawn before it was published";
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A frame that was dropped, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// Why.
    pub reason: Reason,
    /// The call that it named; empty if that is not known.
    pub request_id: Text,
    /// The peer that it named as its sender; empty if that is not known.
    pub peer: Text,
    /// For an expired request, by how much: with skewed clocks, the skew.
    pub late_by: Duration,
}

impl Dropped {
    pub(crate) fn of(reason: Reason, request_id: Text, peer: Text) -> Self {
        Self { reason, request_id, peer, late_by: Duration::ZERO }
    }
}

/// How often each thing happened since an engine was made.
#[derive(Clone, PartialEq, Eq)]
pub struct Counters {
    reasons: [u64; Reason::ALL.len()],
    /// Frames that came in.
    pub frames: u64,
    /// Frames that went out.
    pub published: u64,
    /// Frames that the bus reported lost on the way in; one for each gap of unknown size.
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

    /// Counts frames that the bus reports lost: one, where it does not know how many.
    pub(crate) fn lose(&mut self, frames: Option<u64>) {
        self.lost = self.lost.saturating_add(frames.unwrap_or(1));
    }

    /// How often `reason` dropped a frame, abandoned a request or failed a call.
    pub fn get(&self, reason: Reason) -> u64 {
        self.reasons[reason as usize]
    }

    /// The reasons that happened, and how often.
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
