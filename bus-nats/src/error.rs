//! Errors. They name the server and the cause, but no secret.

use psrpc::BusError;

/// An error of connecting to a server.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// A URL is invalid. The error does not show it, because it may contain a password.
    #[error(
        "invalid URL {number} of a NATS server: {problem}; expected `nats://[user:password@]host[:port]` or `tls://...`"
    )]
    Url {
        /// The position of the URL in the list, from 1.
        number: usize,
        /// The problem with the URL.
        problem: UrlProblem,
    },
    /// A server refuses the credentials or the certificate of the bus, the bus does not trust the
    /// certificate of a server, or a function that returns credentials or TLS options failed.
    #[error("cannot connect to {servers}: {cause}")]
    Refused {
        /// The servers, without credentials.
        servers: String,
        /// The error of the server, of the TLS handshake or of the function. With several servers,
        /// one error per server.
        cause: String,
    },
    /// No server accepted the connection, for other reasons: for example, none is reachable.
    #[error("cannot connect to {servers}: {cause}")]
    Server {
        /// The servers, without credentials.
        servers: String,
        /// The error of the server or the operating system. With several servers, one error per
        /// server.
        cause: String,
    },
    /// The server does not return messages that the bus sends to its own inbox. Without them the
    /// bus cannot know when a subscription is live.
    #[error(
        "no message from {servers} on the inbox of the bus: allow the user to publish and subscribe to `{prefix}.>`"
    )]
    Inbox {
        /// The servers, without credentials.
        servers: String,
        /// The prefix of the inbox subjects.
        prefix: String,
    },
    /// The thread needed on runtimes other than tokio could not be started.
    #[error("cannot start the thread of the NATS client: {0}")]
    Thread(#[source] std::io::Error),
    /// The runtime has shut down.
    #[error("cannot connect to {servers}: the runtime of the bus has shut down")]
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

/// The problem with a URL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UrlProblem {
    /// The URL has no scheme.
    #[error("the scheme is missing")]
    NoScheme,
    /// The scheme is not the scheme of a NATS server.
    #[error("the scheme `{0}:` is not supported")]
    Scheme(String),
    /// The scheme requires the feature `tls`, which is off.
    #[error("TLS (`tls:`) requires the feature `tls` of psrpc-bus-nats")]
    Tls,
    /// Some URLs require TLS and others do not.
    #[error("`nats:` and `tls:` cannot be mixed")]
    MixedSchemes,
    /// TLS options are set, but the URL does not require TLS.
    #[error("the TLS options require the scheme `tls:`")]
    TlsOptions,
    /// The host is missing or invalid.
    #[error("the host is missing or invalid")]
    Host,
    /// The port is invalid.
    #[error("the port is not a number from 1 to 65535")]
    Port,
    /// The user or password contains an invalid percent sequence, or is not UTF-8.
    #[error("the user or password is not percent-encoded UTF-8")]
    Credentials,
}

/// The reason why publishing failed, or a subscription failed or was interrupted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("invalid NATS subject {0:?}: {1}")]
    Subject(String, &'static str),
    #[error(
        "frame too large for {subject:?}: {size} bytes, but the NATS server accepts {limit} (max_payload)"
    )]
    TooLarge { subject: String, size: usize, limit: usize },
    #[error("not connected to {servers}: {cause}")]
    NotConnected { servers: String, cause: String },
    #[error("the connection to {servers} was lost while the frame was being sent")]
    Lost { servers: String },
    #[error("{servers} refused the subscription to {subject:?}: {text}")]
    SubscriptionRefused { servers: String, subject: String, text: String },
    #[error("{servers} refused the publish on {subject:?}: {text}")]
    PublishRefused { servers: String, subject: String, text: String },
    #[error("cannot encode the frame for {subject:?}: the task was dropped by its runtime, or it panicked")]
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
