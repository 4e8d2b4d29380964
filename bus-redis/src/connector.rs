//! The connector: makes connections to one server, or errors that name the server, its words and no
//! secret.

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

/// How long a server that hung up is listened to, to learn why.
const GREETING: Duration = Duration::from_millis(300);

/// The delay before the first attempt to connect again.
const FIRST_DELAY: Duration = Duration::from_millis(10);

/// Where to connect, and how.
pub(crate) struct Connector {
    client: Client,
    /// The server's address, as errors show it.
    pub(crate) server: String,
    pub(crate) options: RedisOptions,
    pub(crate) runtime: Arc<dyn Runtime>,
}

impl Connector {
    /// Returns a connector to the server of a client, whose settings are kept but for those that
    /// the bus needs.
    pub(crate) fn new(
        client: &Client,
        options: RedisOptions,
        runtime: Arc<dyn Runtime>,
    ) -> Result<Self, ConnectError> {
        let info = client.get_connection_info();
        let server = info.addr().to_string();
        // Messages come as pushes between the answers to commands, which RESP 2 does not have.
        let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        let tcp = info.tcp_settings().clone().set_nodelay(true);
        let info = info.clone().set_redis_settings(settings).set_tcp_settings(tcp);
        match info.into_connection_info().and_then(Client::open) {
            Ok(client) => Ok(Self { client, server, options, runtime }),
            Err(error) => Err(ConnectError::Server { server, cause: cause::of_client(&error) }),
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
        // The client library takes tokio where there is a tokio runtime, and smol elsewhere: this
        // runs in a task of the bus's runtime, so that it takes the one that the runtime says it
        // is.
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
        Err(self.error(cause))
    }

    /// Returns what the server says to a client that says nothing, if that is an error.
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

    /// Asks the server whether it is still there. Any answer will do, also a refusal.
    pub(crate) async fn ping(&self, connection: &mut MultiplexedConnection) -> Result<(), BusError> {
        let answer = connection.send_packed_command(&redis::cmd("PING")).await;
        answer.map(drop).map_err(|error| self.failed(&error))
    }

    /// Returns what went wrong on a connection, which was set up before: no secret is sent any
    /// more.
    pub(crate) fn failed(&self, error: &RedisError) -> BusError {
        BusError::new(self.error(cause::of(error, None)))
    }

    /// Returns what to say of an answer that does not fit the command.
    pub(crate) fn unexpected(&self, answer: &Value) -> BusError {
        // A server that is none of ours may answer anything, at any length.
        let answer: String = format!("{answer:?}").chars().take(200).collect();
        BusError::new(self.error(format!("an answer that was not expected: {answer}")))
    }

    pub(crate) fn error(&self, cause: impl Into<String>) -> ConnectError {
        ConnectError::Server { server: self.server.clone(), cause: cause.into() }
    }

    /// Sleeps before the next attempt to connect, after so many failures.
    pub(crate) fn sleep_after(&self, failures: u32) -> Task {
        let noise = self.runtime.now().wall.as_unix_nanos();
        self.sleep(backoff::delay(FIRST_DELAY, failures, self.options.reconnect_delay, noise))
    }

    pub(crate) fn sleep(&self, duration: Duration) -> Task {
        self.runtime.sleep_until(self.runtime.now().time + duration)
    }
}

/// Checks that the client library was built for the runtime.
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
