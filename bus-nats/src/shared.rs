//! What the tasks of a bus have in common: the client, the subjects, and the state of the connection.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Wake;

use async_nats::Client;
use async_nats::connection::State;
use psrpc::bus::{BusEvent, Monitor, Sink, Wakes};
use psrpc::{Runtime, SubscriptionKind, Time};
use tokio::sync::{Mutex as AsyncMutex, Notify, Semaphore, watch};

use crate::echo::Echo;
use crate::error::Fault;
use crate::grants::Grants;
use crate::home::Home;
use crate::link::{self, Link};
use crate::options::NatsOptions;
use crate::outbox::{self, Outbox};
use crate::reader;
use crate::subject::Subject;

/// How many subscriptions are made at a time: what the server refuses comes as an event, of which the client library
/// keeps 128 at most.
const OPENING: usize = 64;

/// What the tasks of a bus have in common.
pub(crate) struct Shared {
    pub(crate) client: Client,
    pub(crate) echo: Echo,
    /// The servers' URLs without credentials, for people.
    pub(crate) servers: String,
    pub(crate) options: NatsOptions,
    pub(crate) outbox: Outbox,
    pub(crate) link: watch::Sender<Link>,
    /// Tells the task that watches the connection to look at it.
    pub(crate) look: Arc<Notify>,
    pub(crate) opening: Arc<Semaphore>,
    /// How many subscriptions the client was asked for, which is how it numbers them.
    pub(crate) sids: AsyncMutex<u64>,
    /// Where the tasks run, as long as this lasts.
    home: Home,
    plain: Mutex<Subjects>,
    queue: Mutex<Subjects>,
    pub(crate) grants: Grants,
    /// What was last heard of the connection.
    cause: Mutex<String>,
    pub(crate) monitor: Monitor,
    runtime: Arc<dyn Runtime>,
    /// When the connection was lost, while it is.
    lost_at: Mutex<Option<Time>>,
}

type Subjects = BTreeMap<Box<str>, Arc<Subject>>;

impl Shared {
    pub(crate) fn new(
        client: Client,
        echo: Echo,
        servers: String,
        options: NatsOptions,
        home: Home,
        runtime: Arc<dyn Runtime>,
    ) -> Self {
        let outbox = Outbox::new(options.queue_bytes);
        let shared = Self {
            client,
            echo,
            servers,
            options,
            outbox,
            link: watch::Sender::new(Link::Down),
            look: Arc::default(),
            opening: Arc::new(Semaphore::new(OPENING)),
            // The inbox of the round trips is the first.
            sids: AsyncMutex::new(1),
            home,
            plain: Mutex::default(),
            queue: Mutex::default(),
            grants: Grants::default(),
            cause: Mutex::new("the connection was lost".to_owned()),
            monitor: Monitor::new(),
            runtime,
            lost_at: Mutex::new(None),
        };
        // The caller has made a round trip.
        shared.link.send_replace(shared.connection().map_or(Link::Down, Link::Up));
        shared
    }

    /// Starts the tasks that every bus has.
    pub(crate) fn start(self: &Arc<Self>) {
        self.spawn(link::watch(Arc::downgrade(self)));
        self.spawn(outbox::write(Arc::clone(self)));
    }

    /// Runs a task on the bus's thread.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.home.spawn(task);
    }

    /// The connection that is there, by its number.
    pub(crate) fn connection(&self) -> Option<u64> {
        let connected = self.client.connection_state() == State::Connected;
        connected.then(|| self.client.statistics().connects.load(Ordering::Relaxed))
    }

    /// Whether frames can be published.
    pub(crate) fn is_up(&self) -> bool {
        // The client knows first.
        *self.link.borrow() != Link::Down && self.client.connection_state() == State::Connected
    }

    /// Adds a listener to a subject.
    pub(crate) fn subscribe(
        self: &Arc<Self>,
        name: &str,
        kind: SubscriptionKind,
        channel: &str,
        sink: Sink,
        wakes: &mut Wakes,
    ) -> (Arc<Subject>, usize) {
        let mut subjects = self.subjects(kind);
        if let Some(subject) = subjects.get(name) {
            return (Arc::clone(subject), subject.add(channel, sink, self.is_up(), wakes));
        }
        let subject = Arc::new(Subject::new(name, kind));
        let key = subject.add(channel, sink, false, wakes);
        subjects.insert(name.into(), Arc::clone(&subject));
        drop(subjects);
        self.spawn(reader::run(Arc::clone(self), Arc::clone(&subject)));
        (subject, key)
    }

    /// Lets a listener leave a subject. Once nobody stays there, whoever comes next gets a subscription of its own.
    pub(crate) fn unsubscribe(&self, subject: &Arc<Subject>, channel: &str, key: usize) {
        let mut subjects = self.subjects(subject.kind);
        if subject.leave(channel, key) {
            forget(&mut subjects, subject);
        }
    }

    /// Fails everybody who listens to a subject.
    pub(crate) fn fail(&self, kind: SubscriptionKind, name: &str, fault: impl Fn() -> Fault) {
        let subject = self.subjects(kind).remove(name);
        if let Some(subject) = subject {
            subject.fail(fault);
        }
    }

    /// A subject's task has ended: whoever is left there has nobody to wait for.
    pub(crate) fn ended(&self, subject: &Arc<Subject>) {
        forget(&mut self.subjects(subject.kind), subject);
        subject.fail(|| Fault::Stopped);
    }

    /// The client library had no room for messages of a subscription.
    pub(crate) fn overrun(&self, sid: u64) {
        for kind in [SubscriptionKind::Plain, SubscriptionKind::Queue] {
            let subjects = self.subjects(kind);
            let overrun: Vec<_> =
                subjects.values().filter(|subject| subject.sid() == sid).map(Arc::clone).collect();
            // The subscribers are woken once the table is free.
            drop(subjects);
            overrun.iter().for_each(|subject| subject.gap());
        }
    }

    /// Remembers what was heard of the connection.
    pub(crate) fn note(&self, cause: String) {
        *self.cause.lock().unwrap_or_else(PoisonError::into_inner) = cause;
    }

    pub(crate) fn not_connected(&self) -> Fault {
        let cause = self.cause.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Fault::NotConnected { servers: self.servers.clone(), cause }
    }

    /// Notes that there is no connection, and tells it once.
    pub(crate) fn down(&self) {
        self.link.send_replace(Link::Down);
        let now = self.runtime.now();
        let mut lost_at = self.lost_at.lock().unwrap_or_else(PoisonError::into_inner);
        if lost_at.is_none() {
            *lost_at = Some(now.time);
            drop(lost_at);
            let event = BusEvent::Lost { since: now.wall, cause: self.not_connected().into() };
            self.monitor.report(event, &mut Wakes::new());
        }
    }

    /// Notes that there is a connection, on which all subscriptions are live again.
    pub(crate) fn up(&self, number: u64) {
        self.link.send_replace(Link::Up(number));
        let lost_at = self.lost_at.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(lost_at) = lost_at {
            let after = self.runtime.now().time.since(lost_at);
            self.monitor.report(BusEvent::Reconnected { after }, &mut Wakes::new());
        }
    }

    pub(crate) fn refused(&self, subject: &str) -> Fault {
        Fault::Refused { servers: self.servers.clone(), subject: subject.to_owned() }
    }

    pub(crate) fn lost(&self) -> Fault {
        Fault::Lost { servers: self.servers.clone() }
    }

    fn subjects(&self, kind: SubscriptionKind) -> MutexGuard<'_, Subjects> {
        let subjects = match kind {
            SubscriptionKind::Plain => &self.plain,
            SubscriptionKind::Queue => &self.queue,
        };
        subjects.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Shared {
    /// Wakes the task that writes.
    fn wake(self: Arc<Self>) {
        self.outbox.notify();
    }
}

/// Removes a subject, unless another has taken its place.
fn forget(subjects: &mut Subjects, subject: &Arc<Subject>) {
    if subjects.get(&subject.name).is_some_and(|known| Arc::ptr_eq(known, subject)) {
        subjects.remove(&subject.name);
    }
}
