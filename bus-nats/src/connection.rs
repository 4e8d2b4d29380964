//! The task that connects to a server and maintains the connection.
//!
//! ```text
//!            +--> connect --> serve, in rounds --> lost --> wait --+
//!            +-----------------------------------------------------+
//! ```
//!
//! Each round sends requests to the server and ends with a round trip: the bus sends a message to
//! its own inbox. The server handles requests in order, so they have been handled when that message
//! arrives. (The client library has no such call: its `flush` completes once the bytes are
//! written.)

use std::future::{pending, poll_fn, ready};
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_nats::{Client, ConnectErrorKind, ConnectOptions, Event, ServerError, Subscriber};
use futures_core::Stream;
use psrpc::bus::{BusEvent, Lock, Monitor, WakeList};
use psrpc::{BusError, Now, Runtime, Time};
use tokio::sync::oneshot;
use tokio::task::yield_now;

use crate::error::{ConnectError, Failure};
use crate::io::{Io, NoResult};
use crate::listeners::Group;
use crate::options::{NatsOptions, delay};
use crate::publish::{CLIENT_CAPACITY, Publisher};
use crate::signal::Signal;
use crate::subscribe::{Round, Subscriptions};
use crate::url::{Credentials, Servers};

/// An address where no server can listen. It keeps the client library from reconnecting by itself:
/// the bus reconnects, because it reports each loss and sends the subscriptions in rounds.
const UNREACHABLE: &str = "nats://127.0.0.1:0";

/// The number of unexpected refusals within about [`REFUSAL_PERIOD`] after which some may have been
/// missed. The client library buffers 128 errors; this is the part not reserved for refusals of
/// pending requests.
const MAX_REFUSALS: usize = 48;
const REFUSAL_PERIOD: Duration = Duration::from_millis(100);

/// State shared by a bus, its subscriptions and its task.
pub(crate) struct Shared {
    servers: Servers,
    /// The URLs of the servers without credentials, for errors.
    pub(crate) names: String,
    options: NatsOptions,
    client: ConnectOptions,
    runtime: Arc<dyn Runtime>,
    io: Io,
    pub(crate) publisher: Arc<Publisher>,
    pub(crate) subscriptions: Arc<Subscriptions>,
    pub(crate) monitor: Monitor,
    work: Arc<Signal>,
    status: Lock<ConnectionStatus>,
}

/// The state of the connection as reported by the client library.
#[derive(Default)]
struct ConnectionStatus {
    /// Whether the bus was closed by dropping its last handle.
    closed: bool,
    /// The number of the connection. Events of earlier connections are ignored.
    connection: u64,
    /// The last error of the server that was not a refusal.
    last_error: Option<String>,
    /// The number of unexpected refusals in the current period and in the previous one.
    refusals: [usize; 2],
    period_start: Option<Time>,
}

impl ConnectionStatus {
    /// Resets the state for a new connection.
    fn begin(&mut self, connection: u64) {
        *self = Self { closed: self.closed, connection, ..Self::default() };
    }
}

impl Shared {
    pub(crate) fn new(
        servers: Servers,
        client: ConnectOptions,
        options: NatsOptions,
        runtime: Arc<dyn Runtime>,
        io: Io,
    ) -> Self {
        let (names, work, monitor) = (servers.to_string(), Arc::<Signal>::default(), Monitor::new());
        let publisher = Publisher::new(names.clone(), &options, Arc::clone(&runtime), Arc::clone(&work));
        let subscriptions = Subscriptions::new(names.clone(), &options, monitor.clone(), Arc::clone(&work));
        Self {
            servers,
            names,
            options,
            client,
            runtime,
            io,
            publisher: Arc::new(publisher),
            subscriptions: Arc::new(subscriptions),
            monitor,
            work,
            status: Lock::default(),
        }
    }

    /// Ends the bus once everything accepted before is done.
    pub(crate) fn close(&self) {
        self.status.lock().closed = true;
        self.work.notify();
    }

    fn is_closed(&self) -> bool {
        self.status.lock().closed
    }

    /// Handles an event from the client library.
    fn on_event(&self, connection: u64, event: Event) {
        if self.status.lock().connection != connection {
            return;
        }
        match event {
            Event::ServerError(ServerError::Other(text)) => self.on_server_error(text),
            Event::ServerError(error) => self.status.lock().last_error = Some(error.to_string()),
            // The readers keep the library's queues empty, but it may still report a drop.
            Event::SlowConsumer(_) => self.subscriptions.gap(),
            _ => {}
        }
    }

    fn on_server_error(&self, text: String) {
        match Refusal::parse(&text) {
            Some(Refusal::Publish(subject)) => {
                if !self.publisher.refused(subject, &text) {
                    self.count_refusal();
                }
            }
            Some(Refusal::Subscription(subject, group)) => {
                if self.subscriptions.refused(subject, group.as_ref(), &text, self.runtime.now()) {
                    self.count_refusal();
                }
            }
            Some(Refusal::UnnamedSubscription) => {
                self.subscriptions.refused_unnamed(&text, self.runtime.now())
            }
            None => self.status.lock().last_error = Some(text),
        }
    }

    fn count_refusal(&self) {
        let now = self.runtime.now().time;
        let mut status = self.status.lock();
        if status.period_start.is_none_or(|since| now.since(since) >= REFUSAL_PERIOD) {
            status.refusals = [0, status.refusals[0]];
            status.period_start = Some(now);
        }
        status.refusals[0] += 1;
        drop(status);
        if self.may_have_missed_refusals() {
            self.work.notify();
        }
    }

    /// Returns `true` if the client library may have dropped the error of a refusal.
    fn may_have_missed_refusals(&self) -> bool {
        self.status.lock().refusals.iter().sum::<usize>() >= MAX_REFUSALS
    }
}

/// The background task of a bus.
pub(crate) struct Task {
    shared: Arc<Shared>,
    /// The number of the current or last connection.
    number: u64,
    /// The servers announced by other servers.
    discovered: Vec<String>,
    /// The time when the connection was lost, until it is restored.
    lost_at: Option<Now>,
    /// Whether the bus was closed. If the task is dropped earlier, the bus has stopped.
    closed: bool,
}

/// An established connection.
struct Connection {
    client: Client,
    inbox: Subscriber,
    address: async_nats::Subject,
    round_trips: u64,
}

/// A round waiting for its round trip.
struct PendingRoundTrip {
    round: Round,
    number: u64,
    /// The time when the connection is given up.
    deadline: Time,
}

type FlushFuture = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The reason why an attempt to connect failed.
enum ConnectFailure {
    Failed(String),
    Inbox,
    Stopped,
}

impl Task {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, number: 0, discovered: Vec::new(), lost_at: None, closed: false }
    }

    /// Maintains the connection until the bus is closed.
    ///
    /// Reports the first connection to `first`, or the first failure unless the bus waits for a
    /// server.
    pub(crate) async fn run(mut self, first: oneshot::Sender<Result<(), ConnectError>>) {
        let (mut first, mut failures) = (Some(first), 0);
        loop {
            let shared = Arc::clone(&self.shared);
            let connected = tokio::select! {
                connected = self.connect() => connected,
                () = closed(&shared) => break,
            };
            match connected {
                Ok(connection) => {
                    self.connected(&connection);
                    // If the receiver was dropped, the bus is closed.
                    first.take().map(|first| first.send(Ok(())));
                    let start = shared.runtime.now().time;
                    let Some(cause) = self.serve(connection).await else { break };
                    // Back off from a server that accepts connections and then drops them.
                    let served = shared.runtime.now().time.since(start);
                    failures = if served >= shared.options.reconnect_delay { 0 } else { failures + 1 };
                    self.report_loss(&cause);
                }
                Err(error) => {
                    if !shared.options.wait_for_server
                        && let Some(first) = first.take()
                    {
                        let _ = first.send(Err(error));
                        break;
                    }
                    failures += 1;
                    if self.lost_at.is_some() {
                        let cause = match error {
                            ConnectError::Refused { cause, .. } => cause,
                            other => other.to_string(),
                        };
                        shared.publisher.lost(&cause);
                    }
                }
            }
            let delay = delay(failures, shared.options.reconnect_delay);
            tokio::select! {
                () = shared.runtime.sleep_until(shared.runtime.now().time + delay) => {}
                () = closed(&shared) => break,
            }
        }
        self.closed = true;
    }

    // --- connecting ------------------------------------------------------------------------------

    /// Connects to the first server that accepts, starting with a random one when reconnecting.
    async fn connect(&mut self) -> Result<Connection, ConnectError> {
        let shared = Arc::clone(&self.shared);
        let mut addresses = shared.servers.addresses.clone();
        addresses.append(&mut self.discovered.clone());
        if self.number > 0 {
            // Spread the clients that lost the same server.
            let jitter = shared.runtime.now().wall.as_unix_nanos().unsigned_abs() as usize;
            let len = addresses.len();
            addresses.rotate_left(jitter % len);
        }
        let (servers, one) = (shared.names.clone(), addresses.len() == 1);
        let mut causes = Vec::new();
        for address in addresses {
            match self.connect_to(&address).await {
                Ok(connection) => return Ok(connection),
                Err(ConnectFailure::Failed(cause)) if one => causes.push(cause),
                Err(ConnectFailure::Failed(cause)) => causes.push(format!("{address}: {cause}")),
                Err(ConnectFailure::Inbox) => {
                    let prefix = shared.options.inbox_prefix.clone();
                    return Err(ConnectError::Inbox { servers, prefix });
                }
                Err(ConnectFailure::Stopped) => return Err(ConnectError::Stopped { servers }),
            }
        }
        Err(ConnectError::Refused { servers, cause: causes.join("; ") })
    }

    async fn connect_to(&mut self, address: &str) -> Result<Connection, ConnectFailure> {
        let shared = Arc::clone(&self.shared);
        self.number += 1;
        shared.status.lock().begin(self.number);
        let limit = shared.options.connection_timeout;
        let timed_out = || ConnectFailure::Failed(format!("no response from a NATS server within {limit:?}"));
        let (options, url) = (self.client_options(), address.to_owned());
        let connecting = shared.io.run(async move {
            let client = options.connect(url).await?;
            // The address is valid, so this fails only if the connection was lost already.
            let _ = client.set_server_pool(UNREACHABLE).await;
            Ok(client)
        });
        // A host name may resolve slowly, and to several addresses.
        let client = match self.within(2 * limit, connecting).await {
            Some(Ok(Ok(client))) => client,
            Some(Ok(Err::<_, async_nats::ConnectError>(error))) => {
                return Err(match error.kind() {
                    ConnectErrorKind::TimedOut => timed_out(),
                    _ => ConnectFailure::Failed(error.to_string()),
                });
            }
            Some(Err(NoResult::Panicked(text))) => {
                return Err(ConnectFailure::Failed(format!(
                    "the NATS client library panicked, perhaps because the server requires TLS, which is not supported yet: {text}"
                )));
            }
            Some(Err(NoResult::Stopped)) => return Err(ConnectFailure::Stopped),
            None => return Err(timed_out()),
        };
        let address = async_nats::Subject::from(client.new_inbox());
        let lost = || ConnectFailure::Failed(shared.loss_cause());
        let inbox = client.subscribe(address.clone()).await.map_err(|_| lost())?;
        let mut connection = Connection { client, inbox, address, round_trips: 0 };
        match self.within(limit, connection.round_trip()).await {
            Some(true) => Ok(connection),
            Some(false) => Err(lost()),
            None => Err(ConnectFailure::Inbox),
        }
    }

    fn client_options(&self) -> ConnectOptions {
        let (shared, number) = (Arc::downgrade(&self.shared), self.number);
        let options = &self.shared.options;
        let client = self.shared.client.clone();
        let client = match self.shared.servers.credentials.clone() {
            Some(Credentials::Token(token)) => client.token(token),
            Some(Credentials::User { name, password }) => client.user_and_password(name, password),
            None => client,
        };
        client
            .name(&options.name)
            .custom_inbox_prefix(&options.inbox_prefix)
            .connection_timeout(options.connection_timeout)
            .ping_interval(options.ping_interval)
            .client_capacity(CLIENT_CAPACITY)
            // Subjects are validated before.
            .skip_subject_validation(true)
            .max_reconnects(1)
            .event_callback(move |event| {
                Weak::upgrade(&shared).inspect(|shared| shared.on_event(number, event));
                ready(())
            })
    }

    /// Returns the output of a future, or `None` if it takes longer than `limit`.
    async fn within<T>(&self, limit: Duration, future: impl Future<Output = T>) -> Option<T> {
        let runtime = &self.shared.runtime;
        tokio::select! {
            biased;
            result = future => Some(result),
            () = runtime.sleep_until(runtime.now().time + limit) => None,
        }
    }

    fn connected(&mut self, connection: &Connection) {
        let shared = &self.shared;
        let known = &shared.servers.addresses;
        let announced = connection.client.server_info().connect_urls.into_iter();
        let announced = announced.map(|address| format!("nats://{address}"));
        self.discovered = announced.filter(|address| !known.contains(address)).collect();
        shared.publisher.connected(connection.client.clone(), self.number);
        shared.subscriptions.connected();
        if let Some(lost) = self.lost_at.take() {
            let after = shared.runtime.now().time.since(lost.time);
            shared.monitor.report(BusEvent::Reconnected { after }, &mut WakeList::new());
        }
    }

    fn report_loss(&mut self, cause: &str) {
        let shared = &self.shared;
        let now = shared.runtime.now();
        self.lost_at = Some(now);
        let cause = shared.not_connected(cause);
        shared.monitor.report(BusEvent::ConnectionLost { since: now.wall, cause }, &mut WakeList::new());
    }

    // --- serving ---------------------------------------------------------------------------------

    /// Serves a connection until it is lost. Returns the cause, or `None` if the bus was closed.
    async fn serve(&mut self, mut connection: Connection) -> Option<String> {
        let shared = Arc::clone(&self.shared);
        let (mut round_trip, mut flush) = (None::<PendingRoundTrip>, None::<FlushFuture>);
        let lost = loop {
            if flush.is_none() && shared.publisher.begin_flush() {
                flush = Some(connection.flush());
            }
            let next_timer = shared.subscriptions.run_timers(shared.runtime.now().time);
            if round_trip.is_none() {
                let round = shared.subscriptions.begin_round();
                if shared.publisher.begin_round() || !round.is_empty() {
                    round_trip = Some(self.begin_round(&mut connection, round).await);
                } else if shared.is_closed() && shared.publisher.is_idle() {
                    // Write what was accepted, if the connection still works.
                    let limit = shared.options.connection_timeout;
                    self.within(limit, connection.flush()).await;
                    return None;
                }
            }
            let next = round_trip.iter().map(|round_trip| round_trip.deadline).chain(next_timer).min();
            tokio::select! {
                biased;
                echo = connection.next_echo() => match echo {
                    None => break shared.loss_cause(),
                    Some(number) => if let Some(round_trip) = round_trip.take_if(|round_trip| round_trip.number == number) {
                        // The library task that reports refusals was woken before this one. Let it
                        // run first.
                        yield_now().await;
                        self.end_round(round_trip.round);
                    },
                },
                () = flushed(&mut flush) => {
                    flush = None;
                    shared.publisher.flushed();
                }
                () = shared.work.notified() => {}
                () = sleep_until(&*shared.runtime, next) => {}
            }
            if round_trip.as_ref().is_some_and(|round_trip| round_trip.deadline <= shared.runtime.now().time)
            {
                break format!("no reply to a round trip within {:?}", shared.options.connection_timeout);
            }
            if shared.may_have_missed_refusals() {
                shared.subscriptions.reduce_window();
                break "the server refused so many requests at once that some errors may be lost".to_owned();
            }
        };
        shared
            .subscriptions
            .lost(round_trip.map(|round_trip| round_trip.round), &shared.not_connected(&lost));
        shared.publisher.lost(&lost);
        Some(lost)
    }

    /// Sends the requests of a round to the server.
    async fn begin_round(&mut self, connection: &mut Connection, round: Round) -> PendingRoundTrip {
        let shared = &self.shared;
        let deadline = shared.runtime.now().time + shared.options.connection_timeout;
        // Unsubscribe first, because the server may limit the number of subscriptions.
        for reader in &round.closing {
            reader.unsubscribe().await;
        }
        for request in &round.requests {
            // If this fails, the connection was lost.
            if let Ok(subscriber) = request.subscribe(&connection.client).await {
                shared.subscriptions.requested(request.id, subscriber);
            }
        }
        PendingRoundTrip { round, number: connection.send_echo().await, deadline }
    }

    /// Handles the end of a round trip.
    fn end_round(&mut self, round: Round) {
        let shared = &self.shared;
        shared.publisher.end_round();
        shared.subscriptions.end_round(round, shared.runtime.now().time);
    }
}

impl Shared {
    fn not_connected(&self, cause: &str) -> BusError {
        Failure::NotConnected { servers: self.names.clone(), cause: cause.to_owned() }.into()
    }

    /// Returns the cause of a lost connection, as far as known.
    fn loss_cause(&self) -> String {
        let last_error = self.status.lock().last_error.take();
        last_error.unwrap_or_else(|| "the connection was lost".to_owned())
    }
}

impl Connection {
    /// Sends a message to the inbox and returns its number.
    async fn send_echo(&mut self) -> u64 {
        self.round_trips += 1;
        let payload = self.round_trips.to_be_bytes().to_vec();
        // If this fails, the connection was lost and the inbox ends.
        let _ = self.client.publish(self.address.clone(), payload.into()).await;
        self.round_trips
    }

    /// Receives the next message in the inbox. Returns its number, or `None` if the connection was
    /// lost.
    async fn next_echo(&mut self) -> Option<u64> {
        loop {
            let message = poll_fn(|cx| Pin::new(&mut self.inbox).poll_next(cx)).await?;
            // Other clients may send to the inbox, too.
            if let Ok(number) = <[u8; 8]>::try_from(&message.payload[..]) {
                return Some(u64::from_be_bytes(number));
            }
        }
    }

    /// Makes a round trip. Returns `false` if the connection was lost.
    async fn round_trip(&mut self) -> bool {
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
    fn flush(&self) -> FlushFuture {
        let client = self.client.clone();
        Box::pin(async move { drop(client.flush().await) })
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.shared.publisher.stop();
        self.shared.subscriptions.stop();
        let cause = if self.closed { Failure::Closed } else { Failure::Stopped };
        self.shared.monitor.report(BusEvent::Stopped { cause: cause.into() }, &mut WakeList::new());
    }
}

async fn closed(shared: &Shared) {
    while !shared.is_closed() {
        shared.work.notified().await;
    }
}

async fn flushed(flush: &mut Option<FlushFuture>) {
    match flush {
        Some(flush) => flush.await,
        None => pending().await,
    }
}

async fn sleep_until(runtime: &dyn Runtime, time: Option<Time>) {
    match time {
        Some(time) => runtime.sleep_until(time).await,
        None => pending().await,
    }
}

/// A refusal reported by the server.
#[derive(Debug, PartialEq)]
enum Refusal<'a> {
    Publish(&'a str),
    /// A subscription to this subject, with its group if known.
    Subscription(&'a str, Option<Group>),
    /// One of the pending subscriptions, not named.
    UnnamedSubscription,
}

impl<'a> Refusal<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let Some(rest) = text.strip_prefix("Permissions Violation for ") else {
            // "maximum subscriptions exceeded", "Invalid Subject"
            let text = text.to_ascii_lowercase();
            let is_one = text.contains("subscription") || text == "invalid subject";
            return is_one.then_some(Refusal::UnnamedSubscription);
        };
        if let Some(rest) = rest.strip_prefix("Publish to \"") {
            return Some(Refusal::Publish(rest.split_once('"')?.0));
        }
        let (subject, rest) = rest.strip_prefix("Subscription to \"")?.split_once('"')?;
        let group = match rest.strip_prefix(" using queue \"") {
            Some(rest) => Some(Group::Queue(rest.split_once('"')?.0.into())),
            // The refusal of a live subscription does not name its group.
            None if rest.contains("(sid ") => None,
            None => Some(Group::Plain),
        };
        Some(Refusal::Subscription(subject, group))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_parsed_with_its_subject_and_group() {
        let parse = Refusal::parse;
        let text = "Permissions Violation for Subscription to \"SRV.Hats\"";
        assert_eq!(parse(text), Some(Refusal::Subscription("SRV.Hats", Some(Group::Plain))));
        let text = "Permissions Violation for Subscription to \"SRV.Hats.Q\" using queue \"bus\"";
        let group = Group::Queue("bus".into());
        assert_eq!(parse(text), Some(Refusal::Subscription("SRV.Hats.Q", Some(group))));
        let text = "Permissions Violation for Subscription to \"SRV.Hats.Q\" (sid \"3\")";
        assert_eq!(parse(text), Some(Refusal::Subscription("SRV.Hats.Q", None)));
        let text = "Permissions Violation for Publish to \"SRV.Hats\"";
        assert_eq!(parse(text), Some(Refusal::Publish("SRV.Hats")));
        assert_eq!(parse("maximum subscriptions exceeded"), Some(Refusal::UnnamedSubscription));
        assert_eq!(parse("Invalid Subject"), Some(Refusal::UnnamedSubscription));
        assert_eq!(parse("Stale Connection"), None);
    }
}
