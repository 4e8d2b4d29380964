//! The task that maintains the connection.
//!
//! ```text
//!            +--> connect --> serve, in rounds --> lost --> wait --+
//!            |                       |                             |
//!            |                       +--> left, for another server |
//!            |                                     |               |
//!            +-------------------------------------+---------------+
//! ```
//!
//! Each round sends requests to the server and ends with a round trip: the bus sends a message to
//! its own inbox. The server handles requests in order, so they have been handled when that message
//! arrives. (The client library has no such call: its `flush` completes once the bytes are
//! written.)
//!
//! A server in lame duck mode is left once the bus has connected to another server.

use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_nats::{ConnectOptions, Event, ServerError};
use psrpc::bus::{BusEvent, Lock, Monitor, WakeList};
use psrpc::{BusError, Runtime, Time};
use psrpc_bus_net::Outage;
use tokio::sync::oneshot;
use tokio::task::yield_now;

use crate::cause::server_words;
use crate::connect::Connection;
use crate::error::{ConnectError, Failure};
use crate::io::Io;
use crate::options::NatsOptions;
use crate::publish::Publisher;
use crate::refusal::Refusal;
use crate::signal::Signal;
use crate::status::ConnectionStatus;
use crate::subscribe::{Round, Subscriptions};
use crate::url::Servers;

/// The delay before the first attempt to connect again.
const FIRST_DELAY: Duration = Duration::from_millis(10);

/// The maximum number of remembered servers that the last server did not announce.
const MAX_EARLIER: usize = 16;

const LAME_DUCK: &str = "the server is shutting down (lame duck mode)";

/// State shared by a bus, its subscriptions and its task.
pub(crate) struct Shared {
    pub(crate) servers: Servers,
    /// The URLs of the servers without credentials, for errors.
    pub(crate) names: String,
    pub(crate) options: NatsOptions,
    pub(crate) client: ConnectOptions,
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) io: Io,
    pub(crate) publisher: Arc<Publisher>,
    pub(crate) subscriptions: Arc<Subscriptions>,
    pub(crate) monitor: Monitor,
    work: Arc<Signal>,
    /// Whether the bus was closed by dropping its last handle.
    closed: Lock<bool>,
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
            closed: Lock::default(),
        }
    }

    /// Ends the bus once everything accepted before is done.
    pub(crate) fn close(&self) {
        *self.closed.lock() = true;
        self.work.notify();
    }

    fn is_closed(&self) -> bool {
        *self.closed.lock()
    }

    /// Handles an event from the client library.
    pub(crate) fn on_event(&self, status: &Lock<ConnectionStatus>, event: Event) {
        let is_used = status.lock().is_used;
        match event {
            Event::ServerError(ServerError::Other(text)) => self.on_server_error(text, is_used, status),
            Event::ServerError(error) => status.lock().last_error = Some(server_words(&error)),
            Event::LameDuckMode => {
                status.lock().is_lame_duck = true;
                self.work.notify();
            }
            // The readers keep the library's queues empty, but it may still report a drop.
            Event::SlowConsumer(_) if is_used => self.subscriptions.gap(),
            _ => {}
        }
    }

    fn on_server_error(&self, text: String, is_used: bool, status: &Lock<ConnectionStatus>) {
        let now = self.runtime.now();
        let counts = match Refusal::parse(&text) {
            Some(_) if !is_used => false,
            Some(Refusal::Publish(subject)) => !self.publisher.refused(subject, &text),
            Some(Refusal::Subscription(subject, group)) => {
                self.subscriptions.refused(subject, group.as_ref(), &text, now)
            }
            Some(Refusal::UnnamedSubscription) => {
                self.subscriptions.refused_unnamed(&text, now);
                false
            }
            None => {
                status.lock().last_error = Some(text);
                false
            }
        };
        if counts && status.lock().count_refusal(now.time) {
            self.work.notify();
        }
    }
}

/// The background task of a bus.
pub(crate) struct Task {
    shared: Arc<Shared>,
    /// The servers announced by the last server, except the named ones.
    announced: Vec<String>,
    /// The servers that only earlier servers announced, latest first. They are still tried, because
    /// a server that was down for a while may be missing from `announced`: the client library does
    /// not report later announcements of a server.
    announced_earlier: Vec<String>,
    outage: Outage,
    /// Whether the bus was closed. If the task is dropped earlier, the bus has stopped.
    closed: bool,
}

/// A round waiting for its round trip.
struct PendingRoundTrip {
    round: Round,
    number: u64,
    /// The time when the connection is given up.
    deadline: Time,
}

/// The loss of a connection.
struct Loss {
    cause: String,
    /// The connection to another server, if the server is shutting down.
    next: Option<Box<Connection>>,
}

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

impl Task {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let outage = Outage::new(shared.monitor.clone());
        Self { shared, announced: Vec::new(), announced_earlier: Vec::new(), outage, closed: false }
    }

    /// Maintains the connection until the bus is closed.
    ///
    /// Reports the first connection to `first`, or the first failure unless the bus waits for a
    /// server.
    pub(crate) async fn run(mut self, first: oneshot::Sender<Result<(), ConnectError>>) {
        let (mut first, mut failures) = (Some(first), 0);
        let mut next = None::<Box<Connection>>;
        loop {
            let shared = Arc::clone(&self.shared);
            let connected = match next.take() {
                Some(connection) => Ok(*connection),
                None => tokio::select! {
                    connected = shared.connect(self.addresses(None)) => connected,
                    () = closed(&shared) => break,
                },
            };
            match connected {
                Ok(connection) => {
                    self.connected(&connection);
                    // If the receiver was dropped, the bus is closed.
                    first.take().map(|first| first.send(Ok(())));
                    let start = shared.runtime.now().time;
                    let Some(loss) = self.serve(connection).await else { break };
                    self.report_loss(&loss.cause);
                    next = loss.next;
                    if next.is_some() {
                        failures = 0;
                        continue;
                    }
                    // Back off from a server that accepts connections and then drops them.
                    if shared.runtime.now().time.since(start) >= shared.options.reconnect_delay {
                        failures = 0;
                    }
                }
                Err(error) => {
                    if !shared.options.wait_for_server
                        && let Some(first) = first.take()
                    {
                        let _ = first.send(Err(error));
                        break;
                    }
                    self.report_failure(error);
                }
            }
            tokio::select! {
                () = shared.sleep_after(failures) => {}
                () = closed(&shared) => break,
            }
            failures = failures.saturating_add(1);
        }
        self.closed = true;
    }

    /// Returns the servers to try, in this order. `leaving` is tried last.
    fn addresses(&self, leaving: Option<&str>) -> Vec<String> {
        let shared = &self.shared;
        let mut addresses = [&shared.servers.addresses[..], &self.announced].concat();
        if self.outage.is_ongoing() || leaving.is_some() {
            // Spread the clients that lost the same server.
            let jitter = shared.runtime.now().wall.as_unix_nanos().unsigned_abs() as usize;
            let len = addresses.len();
            addresses.rotate_left(jitter % len);
        }
        addresses.extend_from_slice(&self.announced_earlier);
        addresses.sort_by_key(|address| Some(&**address) == leaving);
        addresses
    }

    fn connected(&mut self, connection: &Connection) {
        let shared = &self.shared;
        let announced = connection.client.server_info().connect_urls;
        self.on_announced(announced.iter().map(|address| shared.servers.announced(address)).collect());
        let shared = &self.shared;
        connection.status.lock().is_used = true;
        shared.publisher.connected(&connection.client);
        shared.subscriptions.connected();
        self.outage.ended(shared.runtime.now(), &mut WakeList::new());
    }

    fn on_announced(&mut self, mut announced: Vec<String>) {
        announced.retain(|address| !self.shared.servers.addresses.contains(address));
        let mut earlier = std::mem::replace(&mut self.announced, announced);
        earlier.append(&mut self.announced_earlier);
        earlier.retain(|address| !self.announced.contains(address));
        earlier.truncate(MAX_EARLIER);
        self.announced_earlier = earlier;
    }

    fn report_loss(&mut self, cause: &str) {
        let cause = self.shared.not_connected(cause);
        self.outage.lost(self.shared.runtime.now(), &cause, &mut WakeList::new());
    }

    /// Handles a failed attempt to connect.
    fn report_failure(&mut self, error: ConnectError) {
        if !self.outage.is_ongoing() {
            return;
        }
        let is_refusal = matches!(error, ConnectError::Refused { .. } | ConnectError::Inbox { .. });
        let cause = match error {
            ConnectError::Refused { cause, .. } | ConnectError::Server { cause, .. } => cause,
            other => other.to_string(),
        };
        self.shared.publisher.lost(&cause);
        if is_refusal {
            self.outage.refused(&self.shared.not_connected(&cause), &mut WakeList::new());
        }
    }

    // --- serving ---------------------------------------------------------------------------------

    /// Serves a connection until it is lost or left. Returns `None` if the bus was closed.
    async fn serve(&mut self, mut connection: Connection) -> Option<Loss> {
        let shared = Arc::clone(&self.shared);
        let (mut round_trip, mut flush) = (None::<PendingRoundTrip>, None::<BoxFuture<()>>);
        let mut elsewhere = None::<BoxFuture<Connection>>;
        let loss = loop {
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
                    shared.within(shared.options.connection_timeout, connection.flush()).await;
                    return None;
                }
            }
            if elsewhere.is_none() && connection.status.lock().is_lame_duck {
                let addresses = self.addresses(Some(&connection.address));
                elsewhere = Some(Box::pin(connect_until_accepted(Arc::clone(&shared), addresses)));
            }
            let next = round_trip.iter().map(|round_trip| round_trip.deadline).chain(next_timer).min();
            tokio::select! {
                biased;
                echo = connection.next_echo() => match echo {
                    None => break Loss::new(connection.loss_cause()),
                    Some(number) => if let Some(round_trip) = round_trip.take_if(|round_trip| round_trip.number == number) {
                        // The library task that reports refusals was woken before this one. Let it
                        // run first.
                        yield_now().await;
                        self.end_round(round_trip.round);
                    },
                },
                () = completed(&mut flush) => {
                    flush = None;
                    shared.publisher.flushed();
                }
                other = completed(&mut elsewhere) => {
                    shared.leave(&mut connection, &other).await;
                    break Loss { cause: LAME_DUCK.to_owned(), next: Some(Box::new(other)) };
                }
                () = shared.work.notified() => {}
                () = sleep_until(&*shared.runtime, next) => {}
            }
            if round_trip.as_ref().is_some_and(|round_trip| round_trip.deadline <= shared.runtime.now().time)
            {
                let limit = shared.options.connection_timeout;
                break Loss::new(format!("no reply to a round trip within {limit:?}"));
            }
            if connection.status.lock().may_have_missed_refusals() {
                shared.subscriptions.reduce_window();
                let cause = "the server refused so many requests at once that some errors may be lost";
                break Loss::new(cause);
            }
        };
        let interrupted = round_trip.map(|round_trip| round_trip.round);
        shared.subscriptions.lost(interrupted, &shared.not_connected(&loss.cause));
        if loss.next.is_none() {
            shared.publisher.lost(&loss.cause);
        }
        connection.status.lock().is_used = false;
        Some(loss)
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
    /// Publishes on the next connection from now on. Returns once the server that is left has
    /// handled every earlier frame, or does not respond.
    async fn leave(&self, connection: &mut Connection, next: &Connection) {
        next.status.lock().is_used = true;
        let left = async {
            self.publisher.move_to(&next.client).await;
            connection.round_trip().await;
            // The library task that reports refusals was woken before this one. Let it run first.
            yield_now().await;
        };
        self.within(self.options.connection_timeout, left).await;
        // Flushes of the old connection do not count any more.
        self.publisher.flushed();
    }

    /// Sleeps before the next attempt to connect. The delay grows with `failures`.
    fn sleep_after(&self, failures: u32) -> psrpc::Task {
        let now = self.runtime.now();
        let delay = psrpc_bus_net::delay(FIRST_DELAY, failures, self.options.reconnect_delay, now.wall);
        self.runtime.sleep_until(now.time + delay)
    }

    fn not_connected(&self, cause: &str) -> BusError {
        Failure::NotConnected { servers: self.names.clone(), cause: cause.to_owned() }.into()
    }
}

impl Loss {
    fn new(cause: impl Into<String>) -> Self {
        Self { cause: cause.into(), next: None }
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

/// Connects to the first server that accepts, as often as needed.
async fn connect_until_accepted(shared: Arc<Shared>, addresses: Vec<String>) -> Connection {
    let mut failures = 0;
    loop {
        if let Ok(connection) = shared.connect(addresses.clone()).await {
            return connection;
        }
        shared.sleep_after(failures).await;
        failures = failures.saturating_add(1);
    }
}

/// Returns the output of the future, or waits forever if there is none.
async fn completed<T>(future: &mut Option<BoxFuture<T>>) -> T {
    match future {
        Some(future) => future.await,
        None => pending().await,
    }
}

async fn sleep_until(runtime: &dyn Runtime, time: Option<Time>) {
    match time {
        Some(time) => runtime.sleep_until(time).await,
        None => pending().await,
    }
}
