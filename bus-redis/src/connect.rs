//! Connecting: from a URL to a connection, or to an error that names the server and no secret.

use redis::aio::{AsyncPushSender, MultiplexedConnection};
use redis::{AsyncConnectionConfig, Client, ErrorKind, IntoConnectionInfo, ProtocolVersion, RedisError};

use crate::RedisOptions;

/// Why there is no connection. Says which server, and no secret.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The URL is none, or names no Redis server.
    #[error("not the URL of a Redis server: {cause}")]
    Url {
        /// What is wrong with it.
        cause: String,
    },
    /// The server cannot be reached, refuses us, or is no Redis.
    #[error("redis at {server}: {cause}")]
    Server {
        /// Where it is.
        server: String,
        /// What it said, or did not.
        cause: String,
    },
}

impl From<ConnectError> for psrpc::Error {
    fn from(error: ConnectError) -> Self {
        let (code, fault) = match error {
            ConnectError::Url { .. } => (psrpc::ErrorCode::InvalidArgument, psrpc::Fault::Caller),
            ConnectError::Server { .. } => (psrpc::ErrorCode::Unavailable, psrpc::Fault::Bus),
        };
        Self::from_source(code, error).with_fault(fault)
    }
}

/// Where to connect, and how.
pub(crate) struct Connector {
    client: Client,
    /// The server's name in messages.
    pub(crate) server: String,
    options: RedisOptions,
}

impl Connector {
    pub(crate) fn from_url(url: &str, options: RedisOptions) -> Result<Self, ConnectError> {
        let refuse = |cause: String| Err(ConnectError::Url { cause });
        match url.split_once("://") {
            Some(("redis", _)) => {}
            Some(("rediss", _)) => return refuse("`rediss://` needs TLS, which is not supported yet".into()),
            Some((scheme, _)) => return refuse(format!("its scheme is `{scheme}://`, not `redis://`")),
            None => return refuse("it does not begin with `redis://`".into()),
        }
        // Whatever is wrong with it, it may hold a password, and so is not repeated.
        match Client::open(url) {
            Ok(client) => Self::from_client(&client, options),
            Err(error) => refuse(cause(&error)),
        }
    }

    /// The same server as that of a client, whose settings are kept but for those that the bus needs.
    pub(crate) fn from_client(client: &Client, options: RedisOptions) -> Result<Self, ConnectError> {
        let info = client.get_connection_info();
        let server = info.addr().to_string();
        // Messages come as pushes between the answers to commands, which RESP 2 does not have.
        let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        let tcp = info.tcp_settings().clone().set_nodelay(true);
        let info = info.clone().set_redis_settings(settings).set_tcp_settings(tcp);
        match info.into_connection_info().and_then(Client::open) {
            Ok(client) => Ok(Self { client, server, options }),
            Err(error) => Err(ConnectError::Server { server, cause: cause(&error) }),
        }
    }

    /// Connects, and has what the server pushes handed to `pushed`.
    pub(crate) async fn connect(
        &self,
        pushed: impl AsyncPushSender,
    ) -> Result<MultiplexedConnection, ConnectError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.options.connection_timeout))
            .set_response_timeout(Some(self.options.response_timeout))
            .set_push_sender(pushed);
        let connection = self.client.get_multiplexed_async_connection_with_config(&config).await;
        connection.map_err(|error| self.failed(&error))
    }

    /// What went wrong at this server.
    pub(crate) fn failed(&self, error: &RedisError) -> ConnectError {
        let mut cause = cause(error);
        // A server may repeat what it was told.
        let settings = self.client.get_connection_info().redis_settings();
        if let Some(password) = settings.password().filter(|password| !password.is_empty()) {
            cause = cause.replace(password, "...");
        }
        ConnectError::Server { server: self.server.clone(), cause }
    }
}

/// An error in words for people.
fn cause(error: &RedisError) -> String {
    if error.is_timeout() {
        return "it did not answer in time".into();
    }
    match error.kind() {
        _ if error.detail().is_some_and(|detail| detail.starts_with("unknown command")) => {
            "it does not know a command that the bus needs, which takes Redis 6 or later".into()
        }
        ErrorKind::RESP3NotSupported => "it does not know RESP3, which needs Redis 6 or later".into(),
        ErrorKind::Parse => "what it answers is not Redis".into(),
        _ => error.to_string(),
    }
}
