//! Connecting to a server, and the connection.

use std::future::{poll_fn, ready};
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_nats::{Client, ConnectOptions, Subject, Subscriber};
use futures_core::Stream;
use psrpc::bus::Lock;

use crate::cause::{explain, explain_panic, timed_out};
use crate::connection::Shared;
use crate::error::ConnectError;
use crate::io::NoResult;
use crate::publish::CLIENT_CAPACITY;
use crate::status::ConnectionStatus;

/// An address where no server can listen. As the only address of the pool, it keeps the client
/// library from reconnecting by itself. The bus reconnects instead, so that it can report each loss
/// and send the subscriptions in rounds.
const UNREACHABLE: &str = "nats://127.0.0.1:0";

/// An established connection.
pub(crate) struct Connection {
    /// The URL of the server.
    pub(crate) address: String,
    pub(crate) client: Client,
    pub(crate) status: Arc<Lock<ConnectionStatus>>,
    inbox: Subscriber,
    inbox_subject: Subject,
    round_trips: u64,
}

/// The reason why an attempt to connect failed.
pub(crate) enum AttemptError {
    /// One side refuses the credentials or the certificate of the other, or the options do not
    /// provide valid ones.
    Refused(String),
    Failed(String),
    Inbox,
    Stopped,
}

impl Shared {
    /// Connects to the first server that accepts.
    pub(crate) async fn connect(
        self: &Arc<Self>,
        addresses: Vec<String>,
    ) -> Result<Connection, ConnectError> {
        let (servers, is_alone) = (self.names.clone(), addresses.len() == 1);
        let (mut causes, mut is_refusal) = (Vec::new(), false);
        for address in addresses {
            let cause = match self.connect_to(&address).await {
                Ok(connection) => return Ok(connection),
                Err(AttemptError::Refused(cause)) => {
                    is_refusal = true;
                    cause
                }
                Err(AttemptError::Failed(cause)) => cause,
                Err(AttemptError::Inbox) => {
                    let prefix = self.options.inbox_prefix.clone();
                    return Err(ConnectError::Inbox { servers, prefix });
                }
                Err(AttemptError::Stopped) => return Err(ConnectError::Stopped { servers }),
            };
            causes.push(if is_alone { cause } else { format!("{address}: {cause}") });
        }
        let cause = causes.join("; ");
        // A refusal by one server is reported, even if other servers failed for other reasons.
        Err(match is_refusal {
            true => ConnectError::Refused { servers, cause },
            false => ConnectError::Server { servers, cause },
        })
    }

    async fn connect_to(self: &Arc<Self>, address: &str) -> Result<Connection, AttemptError> {
        let status = Arc::new(Lock::new(ConnectionStatus::default()));
        let limit = self.options.connection_timeout;
        let (shared, url) = (Arc::clone(self), address.to_owned());
        let events = Arc::clone(&status);
        let connecting = self.io.run(async move {
            let options = shared.client_options(events).map_err(AttemptError::Refused)?;
            let connected = options.connect(url).await;
            let client = connected.map_err(|error| explain(&error, &shared.servers, &shared.options))?;
            // The address is valid, so this fails only if the connection was lost already.
            let _ = client.set_server_pool(UNREACHABLE).await;
            Ok(client)
        });
        // A host name may resolve slowly, and to several addresses.
        let client = match self.within(2 * limit, connecting).await {
            Some(Ok(Ok(client))) => client,
            Some(Ok(Err(error))) => return Err(error),
            Some(Err(NoResult::Panicked(text))) => {
                return Err(AttemptError::Refused(explain_panic(&text, &self.servers)));
            }
            Some(Err(NoResult::Stopped)) => return Err(AttemptError::Stopped),
            None => return Err(AttemptError::Failed(timed_out(&self.servers, &self.options))),
        };
        let subject = Subject::from(client.new_inbox());
        let Ok(inbox) = client.subscribe(subject.clone()).await else {
            return Err(AttemptError::Failed(loss_cause(&status)));
        };
        let address = address.to_owned();
        let mut connection =
            Connection { address, client, status, inbox, inbox_subject: subject, round_trips: 0 };
        match self.within(limit, connection.round_trip()).await {
            Some(true) => Ok(connection),
            Some(false) => Err(AttemptError::Failed(connection.loss_cause())),
            None => Err(AttemptError::Inbox),
        }
    }

    fn client_options(
        self: &Arc<Self>,
        status: Arc<Lock<ConnectionStatus>>,
    ) -> Result<ConnectOptions, String> {
        let shared = Arc::downgrade(self);
        let client = self.options.apply(self.client.clone(), &self.servers)?;
        Ok(client
            .client_capacity(CLIENT_CAPACITY)
            // Subjects are validated before.
            .skip_subject_validation(true)
            .max_reconnects(1)
            .event_callback(move |event| {
                Weak::upgrade(&shared).inspect(|shared| shared.on_event(&status, event));
                ready(())
            }))
    }

    /// Returns the output of a future, or `None` if it takes longer than `limit`.
    pub(crate) async fn within<T>(&self, limit: Duration, future: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            result = future => Some(result),
            () = self.runtime.sleep_until(self.runtime.now().time + limit) => None,
        }
    }
}

impl Connection {
    /// Sends a message to the inbox and returns its number.
    pub(crate) async fn send_echo(&mut self) -> u64 {
        self.round_trips += 1;
        let payload = self.round_trips.to_be_bytes().to_vec();
        // If this fails, the connection was lost and the inbox ends.
        let _ = self.client.publish(self.inbox_subject.clone(), payload.into()).await;
        self.round_trips
    }

    /// Receives the next message in the inbox. Returns its number, or `None` if the connection was
    /// lost.
    pub(crate) async fn next_echo(&mut self) -> Option<u64> {
        loop {
            let message = poll_fn(|cx| Pin::new(&mut self.inbox).poll_next(cx)).await?;
            // Other clients may send to the inbox, too.
            if let Ok(number) = <[u8; 8]>::try_from(&message.payload[..]) {
                return Some(u64::from_be_bytes(number));
            }
        }
    }

    /// Makes a round trip. Returns `false` if the connection was lost.
    pub(crate) async fn round_trip(&mut self) -> bool {
        let number = self.send_echo().await;
        loop {
            match self.next_echo().await {
                Some(echo) if echo == number => return true,
                Some(_) => {}
                None => return false,
            }
        }
    }

    /// Returns a future that completes once the client library has written everything so far, or
    /// the connection was lost.
    pub(crate) fn flush(&self) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let client = self.client.clone();
        Box::pin(async move { drop(client.flush().await) })
    }

    /// Returns the cause of the loss of this connection, as far as known.
    pub(crate) fn loss_cause(&self) -> String {
        loss_cause(&self.status)
    }
}

fn loss_cause(status: &Lock<ConnectionStatus>) -> String {
    let last_error = status.lock().last_error.take();
    last_error.unwrap_or_else(|| "the connection was lost".to_owned())
}
