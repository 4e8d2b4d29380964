//! What can go wrong, in words that name the server and the cause, and no secret.

use std::time::Duration;

use psrpc::BusError;

/// Why no bus could be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// A URL that is none of a NATS server. It is not repeated, since a password may be anywhere in it.
    #[error("URL {number} of the NATS servers: {problem}; expected `nats://[user:password@]host[:port]`")]
    Url {
        /// Which of the URLs, from 1.
        number: usize,
        /// What is wrong with it.
        problem: UrlProblem,
    },
    /// No server let us in.
    #[error("no connection to {servers}: {cause}")]
    Refused {
        /// The servers, without credentials.
        servers: String,
        /// What the last of them said, or what came instead.
        cause: String,
    },
    /// No NATS server answered in time.
    #[error("no connection to {servers}: no NATS server answered within {limit:?}")]
    TimedOut {
        /// The servers, without credentials.
        servers: String,
        /// How long each of them had.
        limit: Duration,
    },
    /// A message to an inbox of our own draws no answer, so no subscription could be told to be live.
    #[error(
        "{servers} does not answer on an inbox: is the user allowed to publish and subscribe to `{prefix}.>`?"
    )]
    Inbox {
        /// The servers, without credentials.
        servers: String,
        /// What the inboxes of the client begin with.
        prefix: String,
    },
    /// The client library panicked, as it does without TLS when the server requires it.
    #[error(
        "no connection to {servers}: the client library panicked; if the server requires TLS, this bus does not have \
         it yet"
    )]
    Panicked {
        /// The servers, without credentials.
        servers: String,
    },
    /// The bus's own thread could not be had.
    #[error("no thread for the NATS client: {0}")]
    Thread(#[source] std::io::Error),
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

/// Why a frame was not published, or a subscription cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
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
    Denied { servers: String, subject: String, text: String },
    #[error("{servers} refused what was published on {subject:?}: the user is not allowed to")]
    Refused { servers: String, subject: String },
    #[error("publishing on {subject:?}: {cause}")]
    Publish { subject: String, cause: async_nats::PublishError },
    #[error("the NATS client has stopped: its connection was closed for good, or its runtime was shut down")]
    Stopped,
}

impl From<Fault> for BusError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Subject(..) | Fault::TooLarge { .. } => BusError::invalid(fault),
            _ => BusError::new(fault),
        }
    }
}
