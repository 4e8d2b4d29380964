//! Errors, by whose fault they are.
//!
//! * A peer's: a frame that is dropped. No error, but a [`Dropped`](crate::Dropped) and a counter.
//! * The caller's: a command that cannot be carried out, returned by the command
//!   ([`ConfigError`](crate::ConfigError), [`CallError`], [`RegisterError`]).
//! * The bus's: a [`BusError`], handed in with the result of an output.
//! * Nobody's: a call that fails for a [`Reason`], a [`Failure`].

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::error::Error;
use core::fmt;

use psrpc_proto::{Any, ErrorCode, ErrorResponse, Text};

use crate::core::bus_error::BusError;
use crate::reason::Reason;
use crate::wire::bid::Bid;
use crate::wire::outgoing::TooLarge;
use crate::wire::route::Route;

/// What callers are told once their client cannot do anything any more.
const RUNTIME_OF_CLIENT: &str = "the runtime this client was created on has shut down";
/// The same for a server.
const RUNTIME_OF_SERVER: &str = "the runtime this server was created on has shut down";

/// A call that cannot be made as it stands. The caller's fault; nothing was published.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The client is closed.
    #[error("client is closed")]
    Closed,
    /// The client's runtime has shut down, or its background task is gone
    /// ([`Client::abandon`](crate::Engine::abandon)).
    #[error("{}", RUNTIME_OF_CLIENT)]
    RuntimeEnded,
    /// The client's subscriptions are not live yet, so that it would miss the answer.
    #[error("client is not ready: its subscriptions are not live")]
    NotReady,
    /// The method is of another service than the client.
    #[error("{route} is not a method of {service}")]
    WrongService {
        /// The method.
        route: Route,
        /// The client's service.
        service: Text,
    },
    /// Every server answers this method, so a single answer is not what to ask for.
    #[error("{method} is answered by every server, which a unary call cannot be")]
    Multi {
        /// The method.
        method: Text,
    },
    /// Its servers do not all answer this method, so that a multi call of it cannot be.
    #[error("{method} is answered by one server, which a multi call cannot be")]
    NotMulti {
        /// The method.
        method: Text,
    },
    /// The method is a stream, or is called as one and is none.
    #[error("{method} {}", if *.is_stream { "is a stream, which is to be opened" } else { "is no stream" })]
    Stream {
        /// The method.
        method: Text,
        /// Whether it is a stream.
        is_stream: bool,
    },
    /// The client was not set up for streams.
    #[error("the client opens no streams: {method} was not known to be one when the client was made")]
    NoStreams {
        /// The method.
        method: Text,
    },
    /// Too many streams are open.
    #[error("too many open streams, the limit is {limit}")]
    TooManyStreams {
        /// The limit.
        limit: usize,
    },
    /// Options of the selection cannot take effect.
    #[error(
        "{method}: {} cannot take effect, since the bus hands each request of this method to one server",
        .options.join(", ")
    )]
    SelectionOnQueue {
        /// The method.
        method: Text,
        /// The options.
        options: Vec<&'static str>,
    },
    /// An option of the selection is infinite or not a number.
    #[error("{option} must be a finite number")]
    NotFinite {
        /// The option.
        option: &'static str,
    },
    /// The message or metadata is over a limit that receivers keep.
    #[error("{size} {unit} are over the limit of {limit}")]
    TooLarge {
        /// How much it is.
        size: usize,
        /// What it is.
        unit: &'static str,
        /// The limit.
        limit: usize,
    },
    /// Too many calls are in flight.
    #[error("too many calls in flight, the limit is {limit}")]
    TooManyCalls {
        /// The limit.
        limit: usize,
    },
}

impl CallError {
    /// The code that stands for it.
    pub fn code(&self) -> ErrorCode {
        match self {
            CallError::Closed => ErrorCode::Canceled,
            CallError::NotReady | CallError::RuntimeEnded => ErrorCode::Unavailable,
            CallError::TooManyCalls { .. } | CallError::TooManyStreams { .. } => ErrorCode::ResourceExhausted,
            _ => ErrorCode::InvalidArgument,
        }
    }
}

impl From<TooLarge> for CallError {
    fn from(TooLarge { size, unit, limit }: TooLarge) -> Self {
        CallError::TooLarge { size, unit, limit }
    }
}

/// A message that cannot be sent on a stream as it stands. The caller's fault; nothing was
/// published.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The stream has ended, for the cause that its [`Ended`](crate::StreamEvent::Ended) told.
    #[error("stream closed")]
    Ended,
    /// The message is over a limit that receivers keep.
    #[error("{size} {unit} are over the limit of {limit}")]
    TooLarge {
        /// How much it is.
        size: usize,
        /// What it is.
        unit: &'static str,
        /// The limit.
        limit: usize,
    },
    /// Too many messages of the stream are on their way.
    #[error("too many messages on their way, the limit is {limit}")]
    TooMany {
        /// The limit.
        limit: usize,
    },
}

impl SendError {
    /// The code that stands for it.
    pub fn code(&self) -> ErrorCode {
        match self {
            SendError::Ended => ErrorCode::Canceled,
            SendError::TooLarge { .. } => ErrorCode::InvalidArgument,
            SendError::TooMany { .. } => ErrorCode::ResourceExhausted,
        }
    }
}

impl From<TooLarge> for SendError {
    fn from(TooLarge { size, unit, limit }: TooLarge) -> Self {
        SendError::TooLarge { size, unit, limit }
    }
}

/// An update that cannot be published as it stands. The caller's fault; nothing was published.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UpdateError {
    /// The server is closed.
    #[error("server is closed")]
    Closed,
    /// The server's runtime has shut down, or its background task is gone
    /// ([`Server::abandon`](crate::Engine::abandon)).
    #[error("{}", RUNTIME_OF_SERVER)]
    RuntimeEnded,
    /// The method is of another service than the server.
    #[error("{route} is not a method of {service}")]
    WrongService {
        /// The method.
        route: Route,
        /// The server's service.
        service: Text,
    },
    /// The update is over a limit that receivers keep.
    #[error("{size} {unit} are over the limit of {limit}")]
    TooLarge {
        /// How much it is.
        size: usize,
        /// What it is.
        unit: &'static str,
        /// The limit.
        limit: usize,
    },
    /// Too many updates wait for the bus.
    #[error("too many updates wait for the bus, the limit is {limit}")]
    TooMany {
        /// The limit.
        limit: usize,
    },
}

impl UpdateError {
    /// The code that stands for it.
    pub fn code(&self) -> ErrorCode {
        match self {
            UpdateError::Closed => ErrorCode::Canceled,
            UpdateError::RuntimeEnded => ErrorCode::Unavailable,
            UpdateError::TooMany { .. } => ErrorCode::ResourceExhausted,
            UpdateError::WrongService { .. } | UpdateError::TooLarge { .. } => ErrorCode::InvalidArgument,
        }
    }
}

impl From<TooLarge> for UpdateError {
    fn from(TooLarge { size, unit, limit }: TooLarge) -> Self {
        UpdateError::TooLarge { size, unit, limit }
    }
}

/// Methods that cannot be registered together. The caller's fault; nothing was subscribed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegisterError {
    /// The server is shut down or about to be.
    #[error("server is closed")]
    Closed,
    /// The server's runtime has shut down, or its background task is gone
    /// ([`Server::abandon`](crate::Engine::abandon)).
    #[error("{}", RUNTIME_OF_SERVER)]
    RuntimeEnded,
    /// The method is of another service than the server.
    #[error("{route} is not a method of {service}")]
    WrongService {
        /// The method.
        route: Route,
        /// The server's service.
        service: Text,
    },
    /// The method is registered already for this topic.
    #[error("{route} is registered already")]
    Duplicate {
        /// The method and topic.
        route: Route,
    },
    /// The channels of the method on this topic are those of another method or topic that is
    /// registered.
    #[error("{route} would share {channel:?} with {other}, which is registered")]
    Conflict {
        /// The method and topic.
        route: Route,
        /// The method and topic that are registered.
        other: Route,
        /// The name that they would share.
        channel: String,
    },
}

/// A call that failed: the error that its caller gets, and all that is known of the reason.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Why it failed.
    pub reason: Reason,
    /// The code of the error.
    pub code: ErrorCode,
    /// The text of the error.
    pub text: Text,
    /// Messages that say more, from the server that answered.
    pub details: Vec<Any>,
    /// What happened to the call until then.
    pub evidence: Evidence,
    /// What the bus said, if that is why.
    pub source: Option<BusError>,
}

/// What happened to a call, to tell why it failed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Evidence {
    /// Whether nothing was sent: the call could not be made, its deadline had passed before, the
    /// bus had no room in time, or it cannot carry the request.
    pub unsent: bool,
    /// How many subscribers the bus handed the request to; `None` where the bus does not say.
    pub receivers: Option<u64>,
    /// How many servers bid.
    pub bids: u32,
    /// How many of the bids were below the minimum affinity.
    pub below_minimum: u32,
    /// The best bid that was held when the call ended while it still selected.
    pub best: Option<Bid>,
    /// The server that the call was granted to, or that announced that it runs it.
    pub selected: Option<Text>,
    /// How many bids came at the deadline or after it.
    pub late_bids: u32,
    /// Whether the selection function was asked.
    pub asked: bool,
    /// How many error responses came, the one that failed the call included.
    pub errors: u32,
    /// What servers answered while another one could still be selected; the first few.
    pub refusals: Vec<Refusal>,
    /// Whether a server may run it without a grant, as on a queue: then it may have run though no bid came.
    pub may_skip_claim: bool,
    /// Whether the bus may have lost frames to the client while the call was in flight.
    pub gap: bool,
    /// What the bus said last when it refused a queue's servers the lock on a request, while the
    /// call was in flight.
    pub lock_refusal: Option<String>,
}

impl Evidence {
    /// Whether the bus says that nobody was subscribed, and nobody was heard either.
    pub fn is_unheard(&self) -> bool {
        let heard = self.bids > 0 || self.late_bids > 0 || self.errors > 0 || self.selected.is_some();
        self.receivers == Some(0) && !heard
    }
}

/// A server that answered a call with an error instead of a bid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Which; empty where it refused a stream, which does not say.
    pub server_id: String,
    /// The code of its error.
    pub code: ErrorCode,
    /// The text of its error, or how it begins.
    pub text: String,
}

impl Failure {
    pub(crate) fn new(
        reason: Reason,
        code: ErrorCode,
        text: impl Into<Text>,
        evidence: Evidence,
    ) -> Box<Self> {
        Box::new(Self { reason, code, text: text.into(), details: Vec::new(), evidence, source: None })
    }

    pub(crate) fn canceled(evidence: Evidence) -> Box<Self> {
        let text = Text::from_static("request canceled");
        Self::new(Reason::Canceled, ErrorCode::Canceled, text, evidence)
    }

    pub(crate) fn closed(evidence: Evidence) -> Box<Self> {
        Self::new(Reason::ClientClosed, ErrorCode::Canceled, Text::from_static("client is closed"), evidence)
    }

    /// The runtime of a client has shut down.
    pub(crate) fn runtime_of_client(evidence: Evidence) -> Box<Self> {
        let text = Text::from_static(RUNTIME_OF_CLIENT);
        Self::new(Reason::RuntimeEnded, ErrorCode::Unavailable, text, evidence)
    }

    pub(crate) fn server_closed() -> Box<Self> {
        let text = Text::from_static("server is closed");
        Self::new(Reason::ServerClosed, ErrorCode::Canceled, text, Evidence::default())
    }

    /// The runtime of a server has shut down.
    pub(crate) fn runtime_of_server() -> Box<Self> {
        let text = Text::from_static(RUNTIME_OF_SERVER);
        Self::new(Reason::RuntimeEnded, ErrorCode::Unavailable, text, Evidence::default())
    }

    pub(crate) fn timed_out(evidence: Evidence) -> Box<Self> {
        let text = Text::from_static("request timed out");
        Self::new(Reason::TimedOut, ErrorCode::DeadlineExceeded, text, evidence)
    }

    /// No server was selected, since none bid or none of the bids could win.
    pub(crate) fn no_server(evidence: Evidence) -> Box<Self> {
        if evidence.bids == 0 {
            let text = Text::from_static("no response from servers");
            return Self::new(Reason::NoResponse, ErrorCode::Unavailable, text, evidence);
        }
        let text = alloc::format!("no servers available (received {} responses)", evidence.bids);
        Self::new(Reason::NotAcceptable, ErrorCode::Unavailable, text, evidence)
    }

    pub(crate) fn bus(reason: Reason, error: BusError, mut evidence: Evidence) -> Box<Self> {
        let text = alloc::format!("{reason}: {error}");
        evidence.unsent |= error.is_invalid();
        let code = if error.is_invalid() { ErrorCode::InvalidArgument } else { ErrorCode::Unavailable };
        let failure = Self::new(reason, code, text, evidence);
        Box::new(Self { source: Some(error), ..*failure })
    }

    /// A stream ended, for a cause that one of its sides gives.
    pub(crate) fn ended(reason: Reason, cause: ErrorResponse) -> Box<Self> {
        Box::new(Self { reason, ..*Self::answered(cause, Evidence::default()) })
    }

    /// A server answered with an error.
    pub(crate) fn answered(error: ErrorResponse, evidence: Evidence) -> Box<Self> {
        let failure = Self::new(Reason::Answered, error.code, error.text, evidence);
        Box::new(Self { details: error.details, ..*failure })
    }

    /// The caller's selection function failed.
    pub(crate) fn selection(error: ErrorResponse, evidence: Evidence) -> Box<Self> {
        Box::new(Self { reason: Reason::SelectionFailed, ..*Self::answered(error, evidence) })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.text)
    }
}

impl Error for Failure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        // Its text is in that of the failure.
        self.source.as_ref().and_then(Error::source)
    }
}
