//! Errors, grouped by who is at fault.
//!
//! * The peer: its frame is dropped, which is not an error but a [`Dropped`](crate::Dropped) and a
//!   counter.
//! * The caller: the command returns the error ([`ConfigError`](crate::ConfigError), [`CallError`],
//!   [`RegisterError`], ...).
//! * The bus: the driver hands in a [`BusError`] as the result of an output.
//! * Anyone, once a call has started: the call fails with a [`Failure`], which gives the
//!   [`Reason`].

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

/// The error text once the client's runtime has shut down.
const RUNTIME_OF_CLIENT: &str = "the runtime this client was created on has shut down";
/// The error text once the server's runtime has shut down.
const RUNTIME_OF_SERVER: &str = "the runtime this server was created on has shut down";

/// An invalid call. The caller's fault; nothing was published.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The client is closed.
    #[error("client is closed")]
    Closed,
    /// The client's runtime has shut down, or its background task has ended
    /// ([`Client::abandon`](crate::Engine::abandon)).
    #[error("{}", RUNTIME_OF_CLIENT)]
    RuntimeEnded,
    /// The client's subscriptions are not live yet, so it would miss the response.
    #[error("client is not ready: its subscriptions are not live yet")]
    NotReady,
    /// The method belongs to a service other than the client's.
    #[error("{route} is not a method of {service}")]
    WrongService {
        /// The method.
        route: Route,
        /// The client's service.
        service: Text,
    },
    /// The method is a multi method, but was called with a unary call.
    #[error("{method} is a multi method: call it with a multi call")]
    Multi {
        /// The method.
        method: Text,
    },
    /// The method is not a multi method, but was called with a multi call.
    #[error("{method} is not a multi method: call it with a unary call")]
    NotMulti {
        /// The method.
        method: Text,
    },
    /// A stream method was called without opening a stream, or a stream was opened on a method that
    /// has none.
    #[error(
        "{method} {}",
        if *.is_stream {
            "is a stream method: open a stream instead of calling it"
        } else {
            "is not a stream method: call it instead of opening a stream"
        }
    )]
    Stream {
        /// The method.
        method: Text,
        /// Whether the method is a stream.
        is_stream: bool,
    },
    /// The client was created with streams disabled.
    #[error("cannot open a stream of {method}: the client was created without streams")]
    NoStreams {
        /// The method.
        method: Text,
    },
    /// Too many streams are open.
    #[error("too many open streams: the limit is {limit}")]
    TooManyStreams {
        /// The limit.
        limit: usize,
    },
    /// Selection options that have no effect on a queue-routed method are set.
    #[error(
        "{method}: cannot set {}: the bus hands each request to one server, so bids are not compared",
        .options.join(" or ")
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
    /// The message or metadata exceeds a limit of its receivers.
    #[error("request too large: {size} {unit} exceed the limit of {limit}")]
    TooLarge {
        /// The size.
        size: usize,
        /// The unit of `size` and `limit`.
        unit: &'static str,
        /// The limit.
        limit: usize,
    },
    /// Too many calls are in flight.
    #[error("too many calls in flight: the limit is {limit}")]
    TooManyCalls {
        /// The limit.
        limit: usize,
    },
}

impl CallError {
    /// Returns the code of this error.
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

/// A stream message that cannot be sent. The caller's fault; nothing was published.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The stream has ended; its [`Ended`](crate::StreamEvent::Ended) event gave the cause.
    #[error("stream closed")]
    Ended,
    /// The message exceeds a limit of its receivers.
    #[error("message too large: {size} {unit} exceed the limit of {limit}")]
    TooLarge {
        /// The size.
        size: usize,
        /// The unit of `size` and `limit`.
        unit: &'static str,
        /// The limit.
        limit: usize,
    },
    /// Too many sends on the stream wait for a place in its window.
    #[error("too many sends wait for the other side of the stream: the limit is {limit}")]
    TooMany {
        /// The limit.
        limit: usize,
    },
}

impl SendError {
    /// Returns the code of this error.
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

/// An update that cannot be published. The caller's fault; nothing was published.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UpdateError {
    /// The server is closed.
    #[error("server is closed")]
    Closed,
    /// The server's runtime has shut down, or its background task has ended
    /// ([`Server::abandon`](crate::Engine::abandon)).
    #[error("{}", RUNTIME_OF_SERVER)]
    RuntimeEnded,
    /// The method belongs to a service other than the server's.
    #[error("{route} is not a method of {service}")]
    WrongService {
        /// The method.
        route: Route,
        /// The server's service.
        service: Text,
    },
    /// The update exceeds a limit of its receivers.
    #[error("update too large: {size} {unit} exceed the limit of {limit}")]
    TooLarge {
        /// The size.
        size: usize,
        /// The unit of `size` and `limit`.
        unit: &'static str,
        /// The limit.
        limit: usize,
    },
    /// Too many updates wait for the bus.
    #[error("too many updates wait for the bus: the limit is {limit}")]
    TooMany {
        /// The limit.
        limit: usize,
    },
}

impl UpdateError {
    /// Returns the code of this error.
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

/// Methods that cannot be registered. The caller's fault; nothing was subscribed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegisterError {
    /// The server is shut down or shutting down.
    #[error("server is closed")]
    Closed,
    /// The server's runtime has shut down, or its background task has ended
    /// ([`Server::abandon`](crate::Engine::abandon)).
    #[error("{}", RUNTIME_OF_SERVER)]
    RuntimeEnded,
    /// The method belongs to a service other than the server's.
    #[error("{route} is not a method of {service}")]
    WrongService {
        /// The method.
        route: Route,
        /// The server's service.
        service: Text,
    },
    /// The method is already registered on this topic.
    #[error("{route} is already registered")]
    Duplicate {
        /// The method and topic.
        route: Route,
    },
    /// The method and topic share a channel with a registered method or topic.
    #[error("cannot register {route}: it would share the name {channel:?} with {other}")]
    Conflict {
        /// The method and topic.
        route: Route,
        /// The registered method and topic.
        other: Route,
        /// The name of the shared channel.
        channel: String,
    },
}

/// A failed call: the error for its caller, and everything known about the reason. Streams, their
/// messages, subscriptions and updates fail with it too.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Why it failed.
    pub reason: Reason,
    /// The code of the error.
    pub code: ErrorCode,
    /// The text of the error.
    pub text: Text,
    /// Error details, from the server that answered.
    pub details: Vec<Any>,
    /// What happened to the call before it failed.
    pub evidence: Evidence,
    /// The bus's error, if it caused the failure.
    pub source: Option<BusError>,
}

/// The error text of a call that no server responded to. Go uses the same text.
const NO_RESPONSE: Text = Text::from_static("no response from servers");

/// What happened to a call, to explain its failure.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Evidence {
    /// Whether nothing was sent: the call could not be made, its deadline had already passed, the
    /// bus had no room in time, or the bus cannot carry the request.
    pub unsent: bool,
    /// How many subscribers the bus delivered the request to; `None` if the bus does not know.
    pub receivers: Option<u64>,
    /// How many servers bid.
    pub bids: u32,
    /// How many of the bids were below the minimum affinity.
    pub below_minimum: u32,
    /// The best bid so far, if the call ended during selection.
    pub best: Option<Bid>,
    /// The server that the call was granted to, or that announced that it runs the call.
    pub selected: Option<Text>,
    /// How many bids arrived at the deadline or later.
    pub late_bids: u32,
    /// Whether the selection function was called.
    pub asked: bool,
    /// How many error responses arrived, including the one that failed the call.
    pub errors: u32,
    /// The first few errors that arrived while another server could still be selected.
    pub refusals: Vec<Refusal>,
    /// Whether a server may run the call without a grant, as on a queue. If so, the call may have
    /// run although no bid arrived.
    pub may_skip_claim: bool,
    /// Whether the bus may have lost frames to the client while the call was in flight.
    pub gap: bool,
    /// The most recent error with which the bus refused to lock a queue-routed request while the
    /// call was in flight. The request may be this call's. Without a lock, no server gets it.
    pub lock_refusal: Option<String>,
}

impl Evidence {
    /// Returns `true` if the bus delivered the request to no subscriber, and no server replied
    /// either.
    pub fn is_unheard(&self) -> bool {
        let replied = self.bids > 0 || self.late_bids > 0 || self.errors > 0 || self.selected.is_some();
        self.receivers == Some(0) && !replied
    }
}

/// A server that answered a call with an error instead of a bid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The server's id; empty if it refused a stream, because such a frame carries no id.
    pub server_id: String,
    /// The code of its error.
    pub code: ErrorCode,
    /// The text of its error, cut off if long.
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

    /// Creates the failure of a client whose runtime has shut down.
    pub(crate) fn runtime_of_client(evidence: Evidence) -> Box<Self> {
        let text = Text::from_static(RUNTIME_OF_CLIENT);
        Self::new(Reason::RuntimeEnded, ErrorCode::Unavailable, text, evidence)
    }

    pub(crate) fn server_closed() -> Box<Self> {
        let text = Text::from_static("server is closed");
        Self::new(Reason::ServerClosed, ErrorCode::Canceled, text, Evidence::default())
    }

    /// Creates the failure of a server whose runtime has shut down.
    pub(crate) fn runtime_of_server() -> Box<Self> {
        let text = Text::from_static(RUNTIME_OF_SERVER);
        Self::new(Reason::RuntimeEnded, ErrorCode::Unavailable, text, Evidence::default())
    }

    pub(crate) fn timed_out(evidence: Evidence) -> Box<Self> {
        let text = Text::from_static("request timed out");
        Self::new(Reason::TimedOut, ErrorCode::DeadlineExceeded, text, evidence)
    }

    /// Creates the failure of a call whose request reached no subscriber.
    pub(crate) fn nobody_subscribed(evidence: Evidence) -> Box<Self> {
        Self::new(Reason::NobodySubscribed, ErrorCode::Unavailable, NO_RESPONSE, evidence)
    }

    /// Creates the failure of a call for which no server was selected, because none bid or no bid
    /// could win.
    pub(crate) fn no_server(evidence: Evidence) -> Box<Self> {
        if evidence.is_unheard() {
            return Self::nobody_subscribed(evidence);
        }
        if evidence.bids == 0 {
            return Self::new(Reason::NoResponse, ErrorCode::Unavailable, NO_RESPONSE, evidence);
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

    /// Creates the failure of a stream that one of its sides ended with `cause`.
    pub(crate) fn ended(reason: Reason, cause: ErrorResponse) -> Box<Self> {
        Box::new(Self { reason, ..*Self::answered(cause, Evidence::default()) })
    }

    /// Creates the failure of a call that a server answered with an error.
    pub(crate) fn answered(error: ErrorResponse, evidence: Evidence) -> Box<Self> {
        let failure = Self::new(Reason::Answered, error.code, error.text, evidence);
        Box::new(Self { details: error.details, ..*failure })
    }

    /// Creates the failure of a call whose selection function failed.
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
        // The failure's text already contains the bus error's text.
        self.source.as_ref().and_then(Error::source)
    }
}
