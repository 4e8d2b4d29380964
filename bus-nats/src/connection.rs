//! The connection: made, watched, and made again.
//!
//! A bus has one task. It connects, and serves the connection until that is lost:
//!
//! ```text
//!            +--> connect --> serve, in rounds --> lost --> wait --+
//!            +-----------------------------------------------------+
//! ```
//!
//! A round tells the server what is wanted of it, and ends with a round trip: a message that the
//! bus sends to an inbox of its own. The server handles what it gets in order, so it has done by
//! then what it was asked for. (The client library has no call for that: its `flush` ends once the
//! bytes are written.)

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

/// The address that the client library is left with, so that it does not connect again by itself:
/// nobody can listen there. The bus does that, since it has to tell each loss, and to ask for the
/// subscriptions in rounds.
const NOWHERE: &str = "nats://127.0.0.1:0";

/// After how many refusals of what was taken for granted, within about so long, some may be
/// unknown: of the 128 errors that the client library keeps, so many are not answers to what is
/// asked for.
const MOST_REFUSALS: usize = 48;
const REFUSALS_WITHIN: Duration = Duration::from_millis(100);

/// What a bus, its subscriptions and its task have in common.
pub(crate) struct Shared {
    servers: Servers,
    /// The servers' URLs without credentials, for people.
    pub(crate) names: String,
    options: NatsOptions,
    client: ConnectOptions,
    runtime: Arc<dyn Runtime>,
    io: Io,
    pub(crate) publisher: Arc<Publisher>,
    pub(crate) subscriptions: Arc<Subscriptions>,
    pub(crate) monitor: Monitor,
    work: Arc<Signal>,
    heard: Lock<Heard>,
}

/// What the server has told, apart from messages.
#[derive(Default)]
struct Heard {
    /// Whether nobody has the bus any more.
    closed: bool,
    /// The number of the connection. What an earlier one told does not count.
    connection: u64,
    /// The last error that was no refusal.
    words: Option<String>,
    /// The refusals of what was taken for granted, in the period that began then, and in the one
    /// before.
    refusals: [usize; 2],
    counted_since: Option<Time>,
}

impl Heard {
    /// Another connection begins.
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
            heard: Lock::default(),
        }
    }

    /// Ends the bus, once what it was told before is done.
    pub(crate) fn close(&self) {
        self.heard.lock().closed = true;
        self.work.notify();
    }

    fn is_closed(&self) -> bool {
        self.heard.lock().closed
    }

    /// Takes what the client library tells of a connection.
    fn hear(&self, connection: u64, event: Event) {
        if self.heard.lock().connection != connection {
            return;
        }
        match event {
            Event::ServerError(ServerError::Other(text)) => self.hear_error(text),
            Event::ServerError(error) => self.heard.lock().words = Some(error.to_string()),
            // Readers leave nothing in the library's queues; but then it says so.
            Event::SlowConsumer(_) => self.subscriptions.gap(),
            _ => {}
        }
    }

    fn hear_error(&self, text: String) {
        match Refused::read(&text) {
            Some(Refused::Publish(subject)) => {
                if !self.publisher.refused(subject, &text) {
                    self.count_refusal();
                }
            }
            Some(Refused::Subscription(subject, group)) => {
                if self.subscriptions.refused(subject, group.as_ref(), &text, self.runtime.now()) {
                    self.count_refusal();
                }
            }
            Some(Refused::SomeSubscription) => self.subscriptions.refused_one(&text, self.runtime.now()),
            None => self.heard.lock().words = Some(text),
        }
    }

    fn count_refusal(&self) {
        let now = self.runtime.now().time;
        let mut heard = self.heard.lock();
        if heard.counted_since.is_none_or(|since| now.since(since) >= REFUSALS_WITHIN) {
            heard.refusals = [0, heard.refusals[0]];
            heard.counted_since = Some(now);
        }
        heard.refusals[0] += 1;
        drop(heard);
        if self.may_have_missed() {
            self.work.notify();
        }
    }

    /// Returns `true` if the client library may have dropped an error that told of a refusal.
    fn may_have_missed(&self) -> bool {
        self.heard.lock().refusals.iter().sum::<usize>() >= MOST_REFUSALS
    }
}

/// The task of a bus.
pub(crate) struct Task {
    shared: Arc<Shared>,
    /// The number of the connection that there is, or was last.
    number: u64,
    /// The servers that others have told of.
    discovered: Vec<String>,
    /// When the connection was lost, until there is another.
    lost: Option<Now>,
    /// Whether the bus was closed. If the task is dropped before, it has stopped.
    closed: bool,
}

/// A connection, as the task has it.
struct Connection {
    client: Client,
    inbox: Subscriber,
    address: async_nats::Subject,
    round_trips: u64,
}

/// A round whose round trip is under way.
struct Trip {
    round: Round,
    number: u64,
    /// When the connection is given up.
    deadline: Time,
}

type Flush = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Why an attempt to connect has failed.
enum Attempt {
    Failed(String),
    Inbox,
    Stopped,
}

impl Task {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, number: 0, discovered: Vec::new(), lost: None, closed: false }
    }

    /// Keeps the connection until the bus is closed. `first` is told once there is one, or why
    /// there is none, unless the bus is to wait for its server.
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
                    // If nobody waits for it any more, the bus is closed.
                    first.take().map(|first| first.send(Ok(())));
                    let start = shared.runtime.now().time;
                    let Some(cause) = self.serve(connection).await else { break };
                    // A server that drops what it has accepted is not asked again at once for ever.
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
                    if self.lost.is_some() {
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

    // --- to connect ------------------------------------------------------------------------------

    /// Connects to the first server that accepts, from any of them on.
    async fn connect(&mut self) -> Result<Connection, ConnectError> {
        let shared = Arc::clone(&self.shared);
        let mut addresses = shared.servers.addresses.clone();
        addresses.append(&mut self.discovered.clone());
        if self.number > 0 {
            // Not everybody that has lost a server goes to the same one next.
            let noise = shared.runtime.now().wall.as_unix_nanos().unsigned_abs() as usize;
            let len = addresses.len();
            addresses.rotate_left(noise % len);
        }
        let (servers, one) = (shared.names.clone(), addresses.len() == 1);
        let mut causes = Vec::new();
        for address in addresses {
            match self.connect_to(&address).await {
                Ok(connection) => return Ok(connection),
                Err(Attempt::Failed(cause)) if one => causes.push(cause),
                Err(Attempt::Failed(cause)) => causes.push(format!("{address}: {cause}")),
                Err(Attempt::Inbox) => {
                    let prefix = shared.options.inbox_prefix.clone();
                    return Err(ConnectError::Inbox { servers, prefix });
                }
                Err(Attempt::Stopped) => return Err(ConnectError::Stopped { servers }),
            }
        }
        Err(ConnectError::Refused { servers, cause: causes.join("; ") })
    }

    async fn connect_to(&mut self, address: &str) -> Result<Connection, Attempt> {
        let shared = Arc::clone(&self.shared);
        self.number += 1;
        shared.heard.lock().begin(self.number);
        let limit = shared.options.connection_timeout;
        let silent = || Attempt::Failed(format!("no NATS server answered within {limit:?}"));
        let (options, url) = (self.client_options(), address.to_owned());
        let connecting = shared.io.run(async move {
            let client = options.connect(url).await?;
            // It is known, so this fails only when the connection was lost already.
            let _ = client.set_server_pool(NOWHERE).await;
            Ok(client)
        });
        // A name may take long to resolve, and stand for several addresses.
        let client = match self.within(2 * limit, connecting).await {
            Some(Ok(Ok(client))) => client,
            Some(Ok(Err::<_, async_nats::ConnectError>(error))) => {
                return Err(match error.kind() {
                    ConnectErrorKind::TimedOut => silent(),
                    _ => Attempt::Failed(error.to_string()),
                });
            }
            Some(Err(NoResult::Panicked(text))) => {
                return Err(Attempt::Failed(format!(
                    "the NATS client library panicked; if the server requires TLS, this bus does not have it yet: {text}"
                )));
            }
            Some(Err(NoResult::Stopped)) => return Err(Attempt::Stopped),
            None => return Err(silent()),
        };
        let address = async_nats::Subject::from(client.new_inbox());
        let lost = || Attempt::Failed(shared.loss());
        let inbox = client.subscribe(address.clone()).await.map_err(|_| lost())?;
        let mut connection = Connection { client, inbox, address, round_trips: 0 };
        match self.within(limit, connection.round_trip()).await {
            Some(true) => Ok(connection),
            Some(false) => Err(lost()),
            None => Err(Attempt::Inbox),
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
            // Each subject was checked before.
            .skip_subject_validation(true)
            .max_reconnects(1)
            .event_callback(move |event| {
                Weak::upgrade(&shared).inspect(|shared| shared.hear(number, event));
                ready(())
            })
    }

    /// Returns what a future gives, or `None` if that takes longer than `limit`.
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
        let told = connection.client.server_info().connect_urls.into_iter();
        let told = told.map(|address| format!("nats://{address}"));
        self.discovered = told.filter(|address| !known.contains(address)).collect();
        shared.publisher.connected(connection.client.clone(), self.number);
        shared.subscriptions.connected();
        if let Some(lost) = self.lost.take() {
            let after = shared.runtime.now().time.since(lost.time);
            shared.monitor.report(BusEvent::Reconnected { after }, &mut WakeList::new());
        }
    }

    fn report_loss(&mut self, cause: &str) {
        let shared = &self.shared;
        let now = shared.runtime.now();
        self.lost = Some(now);
        let cause = shared.not_connected(cause);
        shared.monitor.report(BusEvent::ConnectionLost { since: now.wall, cause }, &mut WakeList::new());
    }

    // --- to serve --------------------------------------------------------------------------------

    /// Serves a connection until it is lost, and returns why; `None` if the bus was closed.
    async fn serve(&mut self, mut connection: Connection) -> Option<String> {
        let shared = Arc::clone(&self.shared);
        let (mut trip, mut flush) = (None::<Trip>, None::<Flush>);
        let lost = loop {
            if flush.is_none() && shared.publisher.begin_flush() {
                flush = Some(connection.flush());
            }
            let wakes_at = shared.subscriptions.pass_time(shared.runtime.now().time);
            if trip.is_none() {
                let round = shared.subscriptions.begin_round();
                if shared.publisher.begin_round() || !round.is_empty() {
                    trip = Some(self.begin_round(&mut connection, round).await);
                } else if shared.is_closed() && shared.publisher.is_idle() {
                    // What was accepted is still written, if that is possible.
                    let limit = shared.options.connection_timeout;
                    self.within(limit, connection.flush()).await;
                    return None;
                }
            }
            let next = trip.iter().map(|trip| trip.deadline).chain(wakes_at).min();
            tokio::select! {
                biased;
                answer = connection.answer() => match answer {
                    None => break shared.loss(),
                    Some(number) => if let Some(trip) = trip.take_if(|trip| trip.number == number) {
                        // The library's task that tells of refusals was woken before this one.
                        yield_now().await;
                        self.end_round(trip.round);
                    },
                },
                () = wait(&mut flush) => {
                    flush = None;
                    shared.publisher.flushed();
                }
                () = shared.work.notified() => {}
                () = sleep_until(&*shared.runtime, next) => {}
            }
            if trip.as_ref().is_some_and(|trip| trip.deadline <= shared.runtime.now().time) {
                break format!("no answer to a round trip within {:?}", shared.options.connection_timeout);
            }
            if shared.may_have_missed() {
                shared.subscriptions.take_care();
                break "the server refused so much at once that some of it may be unknown".to_owned();
            }
        };
        shared.subscriptions.lost(trip.map(|trip| trip.round), &shared.not_connected(&lost));
        shared.publisher.lost(&lost);
        Some(lost)
    }

    /// Tells the server what a round wants of it.
    async fn begin_round(&mut self, connection: &mut Connection, round: Round) -> Trip {
        let shared = &self.shared;
        let deadline = shared.runtime.now().time + shared.options.connection_timeout;
        // First: the server may limit how many there are.
        for reader in &round.departing {
            reader.unsubscribe().await;
        }
        for ask in &round.asks {
            // If it fails, the connection was lost.
            if let Ok(subscriber) = ask.subscribe(&connection.client).await {
                shared.subscriptions.asked(ask.id, subscriber);
            }
        }
        Trip { round, number: connection.send().await, deadline }
    }

    /// The round trip has come to its end.
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

    /// Returns why the connection was lost, as far as is known.
    fn loss(&self) -> String {
        let words = self.heard.lock().words.take();
        words.unwrap_or_else(|| "the connection was lost".to_owned())
    }
}

impl Connection {
    /// Sends a message to the inbox, and returns its number.
    async fn send(&mut self) -> u64 {
        self.round_trips += 1;
        let payload = self.round_trips.to_be_bytes().to_vec();
        // If this fails, the connection was lost, and the inbox ends.
        let _ = self.client.publish(self.address.clone(), payload.into()).await;
        self.round_trips
    }

    /// Returns the number of the next message that came back, or `None` once the connection was
    /// lost.
    async fn answer(&mut self) -> Option<u64> {
        loop {
            let message = poll_fn(|cx| Pin::new(&mut self.inbox).poll_next(cx)).await?;
            // Others may send to the inbox too.
            if let Ok(number) = <[u8; 8]>::try_from(&message.payload[..]) {
                return Some(u64::from_be_bytes(number));
            }
        }
    }

    /// Makes a round trip. Returns `false` if the connection was lost.
    async fn round_trip(&mut self) -> bool {
        let number = self.send().await;
        loop {
            match self.answer().await {
                Some(answer) if answer == number => return true,
                Some(_) => {}
                None => return false,
            }
        }
    }

    /// Returns a future that ends once what was handed to the client library is written, or the
    /// connection was lost.
    fn flush(&self) -> Flush {
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

async fn wait(flush: &mut Option<Flush>) {
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

/// What a server refuses.
#[derive(Debug, PartialEq)]
enum Refused<'a> {
    Publish(&'a str),
    /// A subscription of this group, or of any.
    Subscription(&'a str, Option<Group>),
    /// One of those that it was asked for.
    SomeSubscription,
}

impl<'a> Refused<'a> {
    fn read(text: &'a str) -> Option<Self> {
        let Some(rest) = text.strip_prefix("Permissions Violation for ") else {
            // "maximum subscriptions exceeded", "Invalid Subject"
            let text = text.to_ascii_lowercase();
            let is_one = text.contains("subscription") || text == "invalid subject";
            return is_one.then_some(Refused::SomeSubscription);
        };
        if let Some(rest) = rest.strip_prefix("Publish to \"") {
            return Some(Refused::Publish(rest.split_once('"')?.0));
        }
        let (subject, rest) = rest.strip_prefix("Subscription to \"")?.split_once('"')?;
        let group = match rest.strip_prefix(" using queue \"") {
            Some(rest) => Some(Group::Queue(rest.split_once('"')?.0.into())),
            // A live one is refused without its group.
            None if rest.contains("(sid ") => None,
            None => Some(Group::Plain),
        };
        Some(Refused::Subscription(subject, group))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_what_it_is_about() {
        let read = Refused::read;
        let text = "Permissions Violation for Subscription to \"SRV.Hats\"";
        assert_eq!(read(text), Some(Refused::Subscription("SRV.Hats", Some(Group::Plain))));
        let text = "Permissions Violation for Subscription to \"SRV.Hats.Q\" using queue \"bus\"";
        let group = Group::Queue("bus".into());
        assert_eq!(read(text), Some(Refused::Subscription("SRV.Hats.Q", Some(group))));
        let text = "Permissions Violation for Subscription to \"SRV.Hats.Q\" (sid \"3\")";
        assert_eq!(read(text), Some(Refused::Subscription("SRV.Hats.Q", None)));
        let text = "Permissions Violation for Publish to \"SRV.Hats\"";
        assert_eq!(read(text), Some(Refused::Publish("SRV.Hats")));
        assert_eq!(read("maximum subscriptions exceeded"), Some(Refused::SomeSubscription));
        assert_eq!(read("Invalid Subject"), Some(Refused::SomeSubscription));
        assert_eq!(read("Stale Connection"), None);
    }
}
