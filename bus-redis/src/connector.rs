//! Connects to one server. Errors name the server and its reply, but no secret.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use psrpc::{BusError, Runtime, Task};
use redis::aio::{AsyncPushSender, MultiplexedConnection};
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, IntoConnectionInfo, ProtocolVersion, RedisError, Value,
};

use crate::error::ConnectError;
use crate::options::RedisOptions;
use crate::{backoff, cause, greeting};

/// How long to wait for the greeting of a server that closed the connection.
const GREETING: Duration = Duration::from_millis(300);

/// The delay before the first attempt to connect again.
const FIRST_DELAY: Duration = Duration::from_millis(10);

/// The server address and the settings of its connections.
pub(crate) struct Connector {
    client: Client,
    /// The server's address as shown in errors.
    pub(crate) server: String,
    pub(crate) options: RedisOptions,
    pub(crate) runtime: Arc<dyn Runtime>,
}

impl Connector {
    /// Returns a connector with the settings of `client`, except those that the bus requires.
    pub(crate) fn new(
        client: &Client,
        options: RedisOptions,
        runtime: Arc<dyn Runtime>,
    ) -> Result<Self, ConnectError> {
        let info = client.get_connection_info();
        let server = info.addr().to_string();
        // The server pushes messages between replies, which RESP2 does not support.
        let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        let tcp = info.tcp_settings().clone().set_nodelay(true);
        let info = info.clone().set_redis_settings(settings).set_tcp_settings(tcp);
        match info.into_connection_info().and_then(Client::open) {
            Ok(client) => Ok(Self { client, server, options, runtime }),
            Err(error) => Err(ConnectError::Server { server, cause: cause::of_client(&error) }),
        }
    }

    /// Connects, and forwards everything that the server pushes to `pushed`.
    pub(crate) async fn connect(
        &self,
        pushed: impl AsyncPushSender,
    ) -> Result<MultiplexedConnection, ConnectError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.options.connection_timeout))
            .set_response_timeout(Some(self.options.response_timeout))
            .set_push_sender(pushed);
        // The client library detects the runtime: tokio inside a tokio runtime, smol otherwise.
        // This code runs in a task of the bus's runtime, so the result agrees with
        // `Runtime::is_tokio`.
        let error = match self.client.get_multiplexed_async_connection_with_config(&config).await {
            Ok(connection) => return Ok(connection),
            Err(error) => error,
        };
        let password = self.client.get_connection_info().redis_settings().password();
        let hung_up = error.is_io_error() && !error.is_timeout() && !error.is_connection_refusal();
        let greeting = if hung_up { self.greeting().await } else { None };
        let cause = match greeting {
            Some(line) => cause::of_server(&line, password),
            None => cause::of(&error, password),
        };
        Err(self.connect_error(cause))
    }

    /// Returns the error that the server sends to a client before any command, if there is one.
    async fn greeting(&self) -> Option<String> {
        let ConnectionAddr::Tcp(host, port) = self.client.get_connection_info().addr() else { return None };
        let mut timeout = self.sleep(GREETING.min(self.options.connection_timeout));
        let mut error = pin!(greeting::error(host, *port, self.runtime.is_tokio()));
        poll_fn(|cx| match error.as_mut().poll(cx) {
            Poll::Ready(error) => Poll::Ready(error),
            Poll::Pending => timeout.as_mut().poll(cx).map(|()| None),
        })
        .await
    }

    /// Pings the server. Any reply is a success, including an error.
    pub(crate) async fn ping(&self, connection: &mut MultiplexedConnection) -> Result<(), BusError> {
        let reply = connection.send_packed_command(&redis::cmd("PING")).await;
        reply.map(drop).map_err(|error| self.bus_error(&error))
    }

    /// Returns the error for a failure on an established connection. The password was sent earlier,
    /// so there is no secret to hide.
    pub(crate) fn bus_error(&self, error: &RedisError) -> BusError {
        BusError::new(self.connect_error(cause::of(error, None)))
    }

    /// Returns the error for a reply that does not fit the command.
    pub(crate) fn unexpected_reply(&self, reply: &Value) -> BusError {
        // A server that is not Redis may reply with anything, of any length.
        let reply: String = format!("{reply:?}").chars().take(200).collect();
        BusError::new(self.connect_error(format!("unexpected reply: {reply}")))
    }

    pub(crate) fn connect_error(&self, cause: impl Into<String>) -> ConnectError {
        ConnectError::Server { server: self.server.clone(), cause: cause.into() }
    }

    /// Sleeps before the next attempt to connect. The delay grows with `failures`.
    pub(crate) fn sleep_after(&self, failures: u32) -> Task {
        let jitter = self.runtime.now().wall.as_unix_nanos();
        self.sleep(backoff::delay(FIRST_DELAY, failures, self.options.reconnect_delay, jitter))
    }

    pub(crate) fn sleep(&self, duration: Duration) -> Task {
        self.runtime.sleep_until(self.runtime.now().time + duration)
    }
}

/// Checks that the Cargo feature for the runtime is enabled.
pub(crate) fn check_features(is_tokio: bool) -> Result<(), ConnectError> {
    match is_tokio {
        true if !cfg!(feature = "tokio") => Err(ConnectError::Runtime { feature: "tokio" }),
        false if !cfg!(feature = "smol") => Err(ConnectError::Runtime { feature: "smol" }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runtime_whose_feature_is_off_is_refused_with_its_name() {
        for (is_tokio, feature, is_on) in
            [(true, "tokio", cfg!(feature = "tokio")), (false, "smol", cfg!(feature = "smol"))]
        {
            match check_features(is_tokio) {
                Ok(()) => assert!(is_on),
                Err(error) => assert!(!is_on && error.to_string().contains(&format!("feature `{feature}`"))),
            }
        }
    }
}
