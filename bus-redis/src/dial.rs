//! Connects to one address: credentials, TLS, and the error of a server that hangs up.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use psrpc_bus_net::Provider;
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, ProtocolVersion, RedisConnectionInfo,
    RedisError,
};
use tokio::sync::oneshot;

use crate::connector::Connector;
use crate::credentials::Credentials;
use crate::error::ConnectError;
#[cfg(feature = "tls")]
use crate::tls::HandshakeError;
use crate::{cause, greeting};

/// How long to wait for the greeting of a server that closed the connection.
const GREETING: Duration = Duration::from_millis(300);

/// A connection to a server.
pub(crate) struct Session {
    pub(crate) connection: MultiplexedConnection,
    /// The server's address as shown in errors.
    pub(crate) server: String,
    /// With TLS, a task of the bus drives the connection. The task ends when this sender is
    /// dropped.
    _driver: Option<oneshot::Sender<()>>,
}

/// The kind of server, which determines the credentials and certificates of a connection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Login {
    Server,
    Sentinel,
}

/// The reason why an attempt failed, as a text of the bus or an error of a library.
enum DialError {
    #[cfg(feature = "tls")]
    Text(String),
    #[cfg(feature = "tls")]
    Handshake(HandshakeError),
    Redis(RedisError),
}

impl Connector {
    /// Connects to an address and logs in.
    pub(crate) async fn dial(
        &self,
        address: &ConnectionAddr,
        login: Login,
        config: &AsyncConnectionConfig,
    ) -> Result<Session, ConnectError> {
        let server = address.to_string();
        let error = |cause| ConnectError::Server { server: server.clone(), cause };
        let refused = |cause| ConnectError::Refused { server: server.clone(), cause };
        let settings = self.settings(address, login).map_err(refused)?;
        let connected = match self.target.tls {
            #[cfg(feature = "tls")]
            true => self.dial_tls(&settings, login, config).await,
            _ => dial_plain(&settings, config).await.map(|connection| (connection, None)),
        };
        let failure = match connected {
            Ok((connection, driver)) => return Ok(Session { connection, server, _driver: driver }),
            Err(failure) => failure,
        };
        let password = settings.redis_settings().password();
        Err(match failure {
            #[cfg(feature = "tls")]
            DialError::Text(cause) | DialError::Handshake(HandshakeError::Failed(cause)) => error(cause),
            #[cfg(feature = "tls")]
            DialError::Handshake(HandshakeError::Refused(cause)) => refused(cause),
            DialError::Redis(failure) if is_refusal(&failure) => refused(cause::of(&failure, password)),
            DialError::Redis(failure) => error(self.cause(address, &failure, password).await),
        })
    }

    /// Returns why an attempt to connect failed.
    async fn cause(&self, address: &ConnectionAddr, error: &RedisError, password: Option<&str>) -> String {
        let (true, ConnectionAddr::Tcp(host, port)) = (is_silent(error) && !self.target.tls, address) else {
            return cause::of(error, password);
        };
        if !error.is_timeout() {
            // The server may have said why it hung up, before it got any command.
            let greeting = greeting::error(host, *port, self.runtime.is_tokio());
            let greeting = self.within(GREETING.min(self.options.connection_timeout), greeting).await;
            if let Some(line) = greeting.flatten() {
                return cause::of_server(&line, password);
            }
        }
        let cause = cause::of(error, password);
        match self.has_connected() {
            true => cause,
            // A server that expects TLS hangs up, or waits for the rest of a handshake.
            false => format!("{cause}: if it expects TLS, use `rediss://`"),
        }
    }

    /// Returns the settings of a connection, with the current credentials.
    fn settings(&self, address: &ConnectionAddr, login: Login) -> Result<ConnectionInfo, String> {
        let (redis, provider) = match login {
            Login::Server => {
                (self.target.settings.redis_settings().clone(), self.options.credentials.as_ref())
            }
            Login::Sentinel => {
                let settings = RedisConnectionInfo::default().set_protocol(ProtocolVersion::RESP3);
                (settings, self.options.sentinel_credentials.as_ref())
            }
        };
        let redis = match provider.map(Provider::provide).transpose()? {
            None => redis,
            Some(credentials) => with_credentials(redis, &credentials),
        };
        Ok(self.target.settings.clone().set_addr(address.clone()).set_redis_settings(redis))
    }

    #[cfg(feature = "tls")]
    async fn dial_tls(
        &self,
        settings: &ConnectionInfo,
        login: Login,
        config: &AsyncConnectionConfig,
    ) -> Result<(MultiplexedConnection, Option<oneshot::Sender<()>>), DialError> {
        let connecting =
            self.within(self.options.connection_timeout, self.connect_tls(settings, login, config));
        let Some(connected) = connecting.await else {
            return Err(DialError::Text(
                "the server did not reply in time: if it does not expect TLS, use `redis://`".into(),
            ));
        };
        let (connection, driver) = connected?;
        let (guard, mut dropped) = oneshot::channel();
        self.runtime.spawn(Box::pin(async move {
            let mut driver = pin!(driver);
            poll_fn(|cx| match Future::poll(std::pin::Pin::new(&mut dropped), cx) {
                Poll::Ready(_) => Poll::Ready(()),
                Poll::Pending => driver.as_mut().poll(cx),
            })
            .await;
        }));
        Ok((connection, Some(guard)))
    }

    #[cfg(feature = "tls")]
    async fn connect_tls(
        &self,
        settings: &ConnectionInfo,
        login: Login,
        config: &AsyncConnectionConfig,
    ) -> Result<(MultiplexedConnection, impl Future<Output = ()> + Send + 'static), DialError> {
        use crate::{stream, tls};

        let ConnectionAddr::Tcp(host, port) = settings.addr() else {
            return Err(DialError::Text("TLS needs a host and a port".into()));
        };
        let own = self.options.sentinel_tls.as_ref().filter(|_| login == Login::Sentinel);
        let options = own.or(self.options.tls.as_ref()).map(Provider::provide).transpose();
        let options = options.map_err(|cause| DialError::Handshake(HandshakeError::Refused(cause)))?;
        let options = options.unwrap_or_default();
        let stream = stream::connect(host, *port, self.runtime.is_tokio()).await;
        let stream = stream.map_err(|error| DialError::Redis(error.into()))?;
        let stream = tls::handshake(&options, host, stream).await.map_err(DialError::Handshake)?;
        let connected =
            MultiplexedConnection::new_with_config(settings.redis_settings(), stream, config.clone());
        connected.await.map_err(DialError::Redis)
    }

    /// Returns the result of a future, or `None` if it takes too long.
    pub(crate) async fn within<T>(&self, timeout: Duration, future: impl Future<Output = T>) -> Option<T> {
        let (mut timeout, mut future) = (self.sleep(timeout), pin!(future));
        poll_fn(|cx| match future.as_mut().poll(cx) {
            Poll::Ready(result) => Poll::Ready(Some(result)),
            Poll::Pending => timeout.as_mut().poll(cx).map(|()| None),
        })
        .await
    }
}

/// The client library detects the runtime: tokio inside a tokio runtime, smol otherwise. This code
/// runs in a task of the bus's runtime, so the result agrees with `Runtime::is_tokio`.
async fn dial_plain(
    settings: &ConnectionInfo,
    config: &AsyncConnectionConfig,
) -> Result<MultiplexedConnection, DialError> {
    let client = Client::open(settings.clone()).map_err(DialError::Redis)?;
    client.get_multiplexed_async_connection_with_config(config).await.map_err(DialError::Redis)
}

/// Returns `true` if the server was reached and did not reply.
fn is_silent(error: &RedisError) -> bool {
    error.is_timeout() || error.is_io_error() && !error.is_connection_refusal()
}

/// Returns `true` if the server refuses the credentials or the certificate of the bus. With TLS 1.3
/// a server refuses a certificate after the handshake.
fn is_refusal(error: &RedisError) -> bool {
    matches!(error.code(), Some("WRONGPASS" | "NOAUTH" | "NOPERM"))
        || error.is_io_error() && error.to_string().contains("received fatal alert")
}

fn with_credentials(settings: RedisConnectionInfo, credentials: &Credentials) -> RedisConnectionInfo {
    let settings = settings.set_password(&credentials.password);
    // The protocol's name of the default user.
    settings.set_username(credentials.user.as_deref().unwrap_or("default"))
}
