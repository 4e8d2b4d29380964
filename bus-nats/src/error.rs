//! What can go wrong, in words that name the server and the cause, and no secret.

use psrpc::BusError;

/// Why no bus could be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// A URL that is none of a NATS server. It is not repeated, since a password may be anywhere in
    /// it.
    #[error("URL {number} of the NATS servers: {problem}; expected `nats://[user:password@]host[:port]`")]
    Url {
        /// Which of the URLs, from 1.
        number: usize,
        /// What is wrong with it.
        problem: UrlProblem,
    },
    /// No server accepted the connection.
    #[error("no connection to {servers}: {cause}")]
    Refused {
        /// The servers, without credentials.
        servers: String,
        /// What it said, or what happened instead; of several servers, the same for each.
        cause: String,
    },
    /// The server does not return a message that the bus sends to its own inbox, so the bus could
    /// not know when a subscription is live.
    #[error(
        "{servers} does not answer on an inbox: is the user allowed to publish and subscribe to `{prefix}.>`?"
    )]
    Inbox {
        /// The servers, without credentials.
        servers: String,
        /// What the inboxes of the client begin with.
        prefix: String,
    },
    /// The thread that the bus needs off tokio could not be started.
    #[error("no thread for the NATS client: {0}")]
    Thread(#[source] std::io::Error),
    /// The runtime has shut down.
    #[error("no connection to {servers}: the runtime of the bus has shut down")]
    Stopped {
        /// The servers, without credentials.
        servers: String,
    },
}

impl From<ConnectError> for psrpc::Error {
    fn from(error: ConnectError) -> Self {
        let (code, fault) = match error {
            ConnectError::Url { .. } => (psrpc::ErrorCode::InvalidArgument, psrpc::Fault::Caller),
            _ => (psrpc::ErrorCode::Unavailable, psrpc::Fault::Bus),
        };
        Self::from_source(code, error).with_fault(fault)
    }
}

/// What is wrong with a URL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UrlProblem {
    /// It has no scheme.
    #[error("it has no scheme")]
    NoScheme,
    /// It has the scheme of something else.
    #[error("`{0}:` is not the scheme of a NATS server")]
    Scheme(String),
    /// It asks for TLS.
    #[error("`tls:` needs TLS, which this bus does not have yet")]
    Tls,
    /// It names no host, or none that can be.
    #[error("it names no host")]
    Host,
    /// Its port is no port.
    #[error("its port is not a number from 1 to 65535")]
    Port,
    /// Its user or password has a percent sign that stands for nothing.
    #[error("its user or password is not percent-encoded UTF-8")]
    Credentials,
}

/// Why a frame was not published, or a subscription failed or is interrupted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("{0:?} cannot be a NATS subject: it {1}")]
    Subject(String, &'static str),
    #[error(
        "a frame of {size} bytes on {subject:?} is over the limit of {limit} bytes of the NATS server (max_payload)"
    )]
    TooLarge { subject: String, size: usize, limit: usize },
    #[error("not connected to {servers}: {cause}")]
    NotConnected { servers: String, cause: String },
    #[error("the connection to {servers} was lost while the frame was on its way")]
    Lost { servers: String },
    #[error("{servers} refused the subscription to {subject:?}: {text}")]
    SubscriptionRefused { servers: String, subject: String, text: String },
    #[error("{servers} refused what was published on {subject:?}: {text}")]
    PublishRefused { servers: String, subject: String, text: String },
    #[error(
        "the frame on {subject:?} could not be encoded: its task was dropped by its runtime, or it panicked"
    )]
    NotEncoded { subject: String },
    #[error("the bus is closed")]
    Closed,
    #[error("the bus has stopped: its background task ended (its runtime shut down, or it panicked)")]
    Stopped,
}

impl From<Failure> for BusError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Subject(..) | Failure::TooLarge { .. } => BusError::invalid(failure),
            _ => BusError::new(failure),
        }
    }
}
