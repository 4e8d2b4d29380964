//! Errors of connecting.

/// Why there is no connection. Names the server, and shows no secret.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The URL is not valid, or does not name a Redis server.
    #[error("not the URL of a Redis server: {cause}")]
    Url {
        /// What is wrong with it.
        cause: String,
    },
    /// The bus was built without support for the runtime that it was given.
    #[error("psrpc-bus-redis was built without its feature `{feature}`, which this runtime needs: enable it")]
    Runtime {
        /// The feature to enable.
        feature: &'static str,
    },
    /// The server cannot be reached, refuses the connection, or is not Redis.
    #[error("redis at {server}: {cause}")]
    Server {
        /// The server's address.
        server: String,
        /// What the server or the operating system said.
        cause: String,
    },
}

impl From<ConnectError> for psrpc::Error {
    fn from(error: ConnectError) -> Self {
        use psrpc::{ErrorCode, Fault};

        let (code, fault) = match error {
            ConnectError::Url { .. } => (ErrorCode::InvalidArgument, Fault::Caller),
            ConnectError::Runtime { .. } => (ErrorCode::FailedPrecondition, Fault::Caller),
            ConnectError::Server { .. } => (ErrorCode::Unavailable, Fault::Bus),
        };
        Self::from_source(code, error).with_fault(fault)
    }
}
