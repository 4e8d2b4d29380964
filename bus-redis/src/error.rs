//! Connection errors.

/// An error of connecting to a server. Contains the server's address, but no secret.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The URL is invalid, is not a Redis URL, or conflicts with the options.
    #[error("invalid Redis URL: {cause}")]
    Url {
        /// The reason, without any part of the URL but its scheme.
        cause: String,
    },
    /// The Cargo feature for the given runtime is disabled.
    #[error("cannot connect on this runtime: enable the feature `{feature}` of psrpc-bus-redis")]
    Runtime {
        /// The feature to enable.
        feature: &'static str,
    },
    /// The server refuses the credentials or the certificate of the bus, the bus does not trust the
    /// certificate of the server, or a function that returns credentials or TLS options failed.
    #[error("redis at {server}: {cause}")]
    Refused {
        /// The server's address.
        server: String,
        /// The error of the server, of the TLS handshake or of the function.
        cause: String,
    },
    /// The server is unreachable, refuses the connection for another reason, or is not of the kind
    /// that the bus needs.
    #[error("redis at {server}: {cause}")]
    Server {
        /// The server's address.
        server: String,
        /// The error of the server or the operating system.
        cause: String,
    },
}

impl From<ConnectError> for psrpc::Error {
    fn from(error: ConnectError) -> Self {
        use psrpc::{ErrorCode, Fault};

        let (code, fault) = match error {
            ConnectError::Url { .. } => (ErrorCode::InvalidArgument, Fault::Caller),
            ConnectError::Runtime { .. } => (ErrorCode::FailedPrecondition, Fault::Caller),
            ConnectError::Server { .. } | ConnectError::Refused { .. } => {
                (ErrorCode::Unavailable, Fault::Bus)
            }
        };
        Self::from_source(code, error).with_fault(fault)
    }
}
