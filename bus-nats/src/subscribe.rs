//! Subscriptions: subjects, their local listeners, and the routing of messages to listeners.
//!
//! All channels that map to one subject share one NATS subscription per kind. Its state at the
//! server:
//!
//! ```text
//!           sent in a round                  the next round ends
//!  Waiting ----------------> Requested --------------------------> Live
//!    ^                           |                                  |
//!    |  the delay ends           |  the server refuses it           |
//!    +---------------- Refused <-+----------------------------------+
//!
//!  any --- the connection is lost ------> Waiting
//!  any --- the last listener leaves ----> Closed: the next listener gets a new subscription
//! ```
//!
//! Requests are sent in rounds. Each round ends with a round trip, after which all messages that
//! the server sent before it have been delivered. The client library reports refusals in another
//! task, which may run late, so a subscription counts as live only at the end of the round after
//! its own. If that task runs even later, the subscription is live for a moment and then
//! interrupted.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use async_nats::{Client, SubscribeError, Subscriber};
use bytes::Bytes;
use psrpc::bus::{BusEvent, Lock, Monitor, Sink, WakeList};
use psrpc::proto::{Channel, Frame, FrameLimits};
use psrpc::{BusError, Now, SubscriptionKind, Time};

use crate::error::Failure;
use crate::listeners::{Group, Listener, ListenerState, Listeners};
use crate::options::NatsOptions;
use crate::reader::Reader;
use crate::signal::Signal;

/// The maximum number of subscriptions that are requested and not confirmed. The server may refuse
/// each of them, and the client library buffers 128 errors.
const MAX_WINDOW: usize = 64;
/// The lowest value of `max_window`, which is reduced when refusals may have been missed.
const MIN_WINDOW_BOUND: usize = 4;

/// The maximum time from the end of a round to the report of its refusals. Only matters for
/// refusals that do not name a subject.
const MAX_REFUSAL_DELAY: Duration = Duration::from_millis(100);

/// The first and the longest delay before a refused subscription is requested again.
const FIRST_DELAY: Duration = Duration::from_millis(20);
const LONGEST_DELAY: Duration = Duration::from_secs(1);

/// The queue group of all queue subscriptions (PROTOCOL section 2) without a group of their own.
const GROUP: &str = "bus";

/// The subscriptions of a bus.
pub(crate) struct Subscriptions {
    table: Lock<Table>,
    servers: String,
    limits: FrameLimits,
    /// The service and method of the updates with their own queue groups.
    separate: BTreeSet<(String, String)>,
    monitor: Monitor,
    /// Wakes the task of the bus when a round is needed.
    work: Arc<Signal>,
}

#[derive(Default)]
struct Table {
    subjects: BTreeMap<u64, Subject>,
    /// The subjects that are not closed.
    by_name: BTreeMap<(Box<str>, Group), u64>,
    last_id: u64,
    /// The subjects to request in the next rounds.
    waiting: VecDeque<u64>,
    /// The refused subjects, by the time of the next attempt.
    retries: BTreeSet<(Time, u64)>,
    /// The readers to unsubscribe in the next round.
    closing: Vec<Arc<Reader>>,
    /// The listeners to remove at the end of the next round.
    leaving: Vec<ListenerId>,
    /// The subjects requested in the last round. The next round confirms them.
    unconfirmed: Vec<u64>,
    /// The maximum number of unconfirmed subjects now, and its upper bound.
    window: usize,
    max_window: usize,
    /// The earliest time to confirm subjects, if a round alone is not enough.
    confirm_at: Option<Time>,
    /// The time before which no request is sent, because refusals of withdrawn requests may still
    /// come.
    paused_until: Option<Time>,
    connected: bool,
    stopped: bool,
}

/// A subject, subscribed to plainly or with a queue group.
struct Subject {
    name: Box<str>,
    group: Group,
    state: SubscriptionState,
    /// The listeners by local channel name.
    channels: BTreeMap<Box<str>, Listeners>,
    /// The number of listeners that are not leaving.
    active: usize,
    /// The number of consecutive refusals.
    refusals: u32,
    /// The end of the round that requested the subject; `None` once a message has arrived, which
    /// proves the subscription.
    round_ended_at: Option<Time>,
}

/// The state of a subject's subscription at the server.
enum SubscriptionState {
    Waiting,
    /// Requested. The reader is set once the client library has accepted the request.
    Requested(Option<Arc<Reader>>),
    Live(Arc<Reader>),
    Refused,
    Closed,
}

/// Identifies a listener.
#[derive(Clone, Debug)]
pub(crate) struct ListenerId {
    subject: u64,
    channel: Channel,
    key: usize,
}

/// The requests to send to the server in one round.
pub(crate) struct Round {
    pub(crate) requests: Vec<SubscribeRequest>,
    pub(crate) closing: Vec<Arc<Reader>>,
    leaving: Vec<ListenerId>,
    unconfirmed: Vec<u64>,
}

/// A request to subscribe to a subject.
pub(crate) struct SubscribeRequest {
    pub(crate) id: u64,
    name: String,
    group: Group,
}

impl SubscribeRequest {
    /// Passes the request to the client library.
    pub(crate) async fn subscribe(&self, client: &Client) -> Result<Subscriber, SubscribeError> {
        match &self.group {
            Group::Plain => client.subscribe(self.name.clone()).await,
            Group::Queue(group) => client.queue_subscribe(self.name.clone(), group.to_string()).await,
        }
    }
}

impl Round {
    pub(crate) fn is_empty(&self) -> bool {
        let Round { requests, closing, leaving, unconfirmed } = self;
        requests.is_empty() && closing.is_empty() && leaving.is_empty() && unconfirmed.is_empty()
    }
}

impl Subscriptions {
    pub(crate) fn new(servers: String, options: &NatsOptions, monitor: Monitor, work: Arc<Signal>) -> Self {
        let table = Table { window: MAX_WINDOW, max_window: MAX_WINDOW, ..Table::default() };
        let (limits, separate) = (options.frame_limits, options.separate_updates.clone());
        Self { table: Lock::new(table), servers, limits, separate, monitor, work }
    }

    // --- listeners -------------------------------------------------------------------------------

    /// Adds a listener. Returns `None` if the bus has stopped.
    pub(crate) fn subscribe(
        &self,
        channel: &Channel,
        kind: SubscriptionKind,
        sink: Sink,
        wakes: &mut WakeList,
    ) -> Option<ListenerId> {
        let mut table = self.table.lock();
        if table.stopped {
            sink.fail(Failure::Stopped.into(), wakes);
            return None;
        }
        let group = match kind {
            SubscriptionKind::Plain => Group::Plain,
            SubscriptionKind::Queue => Group::Queue(self.queue_group(channel.server(), channel.local())),
        };
        let key = (channel.server().into(), group);
        let id = table.by_name.get(&key).copied();
        let id = id.unwrap_or_else(|| table.insert(key));
        let subject = table.subjects.get_mut(&id)?;
        let key = subject.insert(channel.local(), sink, wakes);
        if let SubscriptionState::Refused = subject.state {
            subject.state = SubscriptionState::Waiting;
            table.waiting.push_back(id);
        }
        drop(table);
        wakes.push(self.work.waker());
        Some(ListenerId { subject: id, channel: channel.clone(), key })
    }

    /// Marks a listener as leaving. It receives frames until the end of the next round.
    pub(crate) fn unsubscribe(&self, id: ListenerId) {
        let mut wakes = WakeList::new();
        let mut table = self.table.lock();
        let Some(subject) = table.subjects.get_mut(&id.subject) else { return };
        if !subject.leave(id.channel.local(), id.key) {
            return;
        }
        if subject.active == 0 {
            let key = (mem::take(&mut subject.name), subject.group.clone());
            if let SubscriptionState::Requested(Some(reader)) | SubscriptionState::Live(reader) =
                mem::replace(&mut subject.state, SubscriptionState::Closed)
            {
                table.closing.push(reader);
            }
            table.by_name.remove(&key);
        }
        if table.connected {
            table.leaving.push(id);
        } else {
            table.remove(&id, &mut wakes);
        }
        wakes.push(self.work.waker());
    }

    // --- the connection --------------------------------------------------------------------------

    /// Records that a connection is established.
    pub(crate) fn connected(&self) {
        self.table.lock().connected = true;
    }

    /// Reduces the number of requests in flight after refusals may have been missed.
    pub(crate) fn reduce_window(&self) {
        let mut table = self.table.lock();
        table.max_window = (table.max_window / 4).max(MIN_WINDOW_BOUND);
        table.window = table.window.min(table.max_window);
    }

    /// Handles the loss of the connection. `round` is the round in flight, if any.
    pub(crate) fn lost(&self, round: Option<Round>, cause: &BusError) {
        let mut readers = self.table.lock().take_readers();
        readers.extend(round.iter().flat_map(|round| round.closing.iter().cloned()));
        // Deliver the messages that have already arrived.
        readers.iter().for_each(Reader::close);
        let mut wakes = WakeList::new();
        let mut table = self.table.lock();
        table.connected = false;
        let leaving = mem::take(&mut table.leaving);
        for id in leaving.into_iter().chain(round.into_iter().flat_map(|round| round.leaving)) {
            table.remove(&id, &mut wakes);
        }
        table.retries.clear();
        table.unconfirmed.clear();
        table.waiting.clear();
        (table.confirm_at, table.paused_until) = (None, None);
        let Table { subjects, waiting, .. } = &mut *table;
        for (id, subject) in subjects {
            subject.state = SubscriptionState::Waiting;
            subject.interrupt(false, cause, &mut wakes);
            waiting.push_back(*id);
        }
    }

    /// Fails all current and later listeners.
    pub(crate) fn stop(&self) {
        let readers = self.table.lock().take_readers();
        readers.iter().for_each(Reader::close);
        let mut wakes = WakeList::new();
        let mut table = self.table.lock();
        table.stopped = true;
        for mut subject in mem::take(&mut table.subjects).into_values() {
            let listeners = subject.channels.values_mut().flat_map(|listeners| listeners.all.drain());
            for Listener { sink, leaving, .. } in listeners {
                if leaving { sink.end(&mut wakes) } else { sink.fail(Failure::Stopped.into(), &mut wakes) }
            }
        }
        table.by_name = Default::default();
    }

    // --- rounds ----------------------------------------------------------------------------------

    /// Runs the timers that are due. Returns the time of the next one.
    pub(crate) fn run_timers(&self, now: Time) -> Option<Time> {
        let mut table = self.table.lock();
        table.confirm_at = table.confirm_at.filter(|at| *at > now);
        table.paused_until = table.paused_until.filter(|until| *until > now);
        while let Some((at, id)) = table.retries.first().copied() {
            if at > now {
                break;
            }
            table.retries.pop_first();
            if let Some(subject) = table.subjects.get_mut(&id)
                && let SubscriptionState::Refused = subject.state
            {
                subject.state = SubscriptionState::Waiting;
                table.waiting.push_back(id);
            }
        }
        let retry_at = table.retries.first().map(|(at, _)| *at);
        [table.confirm_at, table.paused_until, retry_at].into_iter().flatten().min()
    }

    /// Takes the requests for the next round.
    pub(crate) fn begin_round(&self) -> Round {
        let mut table = self.table.lock();
        let (closing, leaving) = (mem::take(&mut table.closing), mem::take(&mut table.leaving));
        let room = match table.paused_until {
            None => table.window.saturating_sub(table.unconfirmed.len()),
            Some(_) => 0,
        };
        let unconfirmed =
            if table.confirm_at.is_none() { mem::take(&mut table.unconfirmed) } else { Vec::new() };
        let mut requests = Vec::new();
        while requests.len() < room
            && let Some(id) = table.waiting.pop_front()
        {
            if let Some(subject) = table.subjects.get_mut(&id)
                && let SubscriptionState::Waiting = subject.state
            {
                subject.state = SubscriptionState::Requested(None);
                requests.push(SubscribeRequest {
                    id,
                    name: subject.name.to_string(),
                    group: subject.group.clone(),
                });
            }
        }
        Round { requests, closing, leaving, unconfirmed }
    }

    /// Records that the client library has accepted a request.
    pub(crate) fn requested(self: &Arc<Self>, id: u64, subscriber: impl Into<Option<Subscriber>>) {
        let subscriptions = Arc::clone(self);
        let reader =
            Reader::new(subscriber.into(), move |message, wakes| subscriptions.route(id, message, wakes));
        let mut table = self.table.lock();
        match table.subjects.get_mut(&id) {
            Some(Subject { state: SubscriptionState::Requested(known @ None), .. }) => {
                *known = Some(Arc::clone(&reader));
            }
            // Refused or closed in the meantime, but messages may still arrive.
            _ => table.closing.push(Arc::clone(&reader)),
        }
        drop(table);
        reader.read();
    }

    /// Handles the end of a round.
    pub(crate) fn end_round(&self, round: Round, now: Time) {
        round.closing.iter().for_each(Reader::close);
        let mut wakes = WakeList::new();
        let mut table = self.table.lock();
        for id in &round.leaving {
            table.remove(id, &mut wakes);
        }
        for id in round.unconfirmed {
            if let Some(subject) = table.subjects.get_mut(&id)
                && subject.confirm(&mut wakes)
            {
                table.window = (2 * table.window).min(table.max_window);
            }
        }
        // With a window of one, wait long enough to know which request a refusal belongs to.
        if table.window == 1 && !round.requests.is_empty() {
            table.confirm_at = Some(now + MAX_REFUSAL_DELAY);
        }
        for SubscribeRequest { id, .. } in round.requests {
            if let Some(subject) = table.subjects.get_mut(&id)
                && let SubscriptionState::Requested(_) = subject.state
            {
                subject.round_ended_at = Some(now);
                table.unconfirmed.push(id);
            }
        }
    }

    // --- refusals --------------------------------------------------------------------------------

    /// Handles a refusal that names a subject, with its group if known. Returns `true` if a
    /// subscription was live.
    pub(crate) fn refused(&self, name: &str, group: Option<&Group>, text: &str, now: Now) -> bool {
        let all = (Box::<str>::from(name), Group::Plain)..;
        let table = self.table.lock();
        let of_name = table.by_name.range(all).take_while(|((other, _), _)| **other == *name);
        let of_group = of_name.filter(|((_, other), _)| group.is_none_or(|group| group == other));
        let ids: Vec<_> = of_group.map(|(_, id)| *id).collect();
        drop(table);
        ids.into_iter().map(|id| self.refuse(id, text, now)).fold(false, |any, was_live| any | was_live)
    }

    /// Handles a refusal that does not name a subject. If several subjects are possible, all of
    /// them are requested again, one at a time.
    pub(crate) fn refused_unnamed(&self, text: &str, now: Now) {
        let mut wakes = WakeList::new();
        let mut table = self.table.lock();
        // The refusal belongs to a withdrawn request.
        if table.paused_until.is_some() {
            return;
        }
        let is_candidate = |(_, subject): &(&u64, &Subject)| match subject.state {
            SubscriptionState::Requested(_) => true,
            SubscriptionState::Live(_) => !subject.is_certain(now.time),
            _ => false,
        };
        let candidates: Vec<_> = table.subjects.iter().filter(is_candidate).map(|(id, _)| *id).collect();
        table.window = 1;
        if let [id] = candidates[..] {
            // The next request need not wait.
            table.confirm_at = None;
            drop(table);
            self.refuse(id, text, now);
            return self.work.notify();
        }
        table.paused_until = Some(now.time + MAX_REFUSAL_DELAY);
        for id in candidates.into_iter().rev() {
            let Some(subject) = table.subjects.get_mut(&id) else { continue };
            let cause = self.refusal(&subject.name, text);
            let reader = match mem::replace(&mut subject.state, SubscriptionState::Waiting) {
                SubscriptionState::Live(reader) => Some(reader),
                SubscriptionState::Requested(reader) => reader,
                _ => None,
            };
            subject.interrupt(false, &cause, &mut wakes);
            table.closing.extend(reader);
            table.waiting.push_front(id);
        }
        wakes.push(self.work.waker());
    }

    fn refuse(&self, id: u64, text: &str, now: Now) -> bool {
        let mut wakes = WakeList::new();
        let mut table = self.table.lock();
        let Some(subject) = table.subjects.get_mut(&id) else { return false };
        let (reader, was_live) = match mem::replace(&mut subject.state, SubscriptionState::Refused) {
            SubscriptionState::Requested(reader) => (reader, false),
            SubscriptionState::Live(reader) => (Some(reader), true),
            other => {
                subject.state = other;
                return false;
            }
        };
        let (name, cause) = (subject.name.to_string(), self.refusal(&subject.name, text));
        let is_first = subject.refusals == 0;
        subject.refusals = subject.refusals.saturating_add(1);
        subject.interrupt(is_first, &cause, &mut wakes);
        subject.fail_new(&cause, &mut wakes);
        let (key, refusals) = ((subject.name.clone(), subject.group.clone()), subject.refusals);
        if subject.active > 0 {
            let delay = psrpc_bus_net::delay(FIRST_DELAY, refusals - 1, LONGEST_DELAY, now.wall);
            table.retries.insert((now.time + delay, id));
            wakes.push(self.work.waker());
        } else {
            subject.state = SubscriptionState::Closed;
            let is_empty = subject.channels.is_empty();
            table.by_name.remove(&key);
            if is_empty {
                table.subjects.remove(&id);
            }
        }
        if is_first {
            let event = BusEvent::SubscriptionRefused { channel: name, cause };
            self.monitor.report(event, &mut wakes);
        }
        drop(table);
        reader.as_ref().inspect(|reader| Reader::close(reader));
        was_live
    }

    fn refusal(&self, subject: &str, text: &str) -> BusError {
        let (servers, subject) = (self.servers.clone(), subject.to_owned());
        Failure::SubscriptionRefused { servers, subject, text: text.to_owned() }.into()
    }

    // --- messages --------------------------------------------------------------------------------

    /// Delivers a message to its listeners.
    pub(crate) fn route(&self, subject: u64, message: Bytes, wakes: &mut WakeList) {
        let decoded = Frame::decode(&message, &self.limits);
        let mut table = self.table.lock();
        let Some(subject) = table.subjects.get_mut(&subject) else { return };
        subject.round_ended_at = None;
        subject.confirm(wakes);
        match decoded {
            Ok((frame, channel)) => match (subject.channels.get_mut(channel.as_str()), &subject.group) {
                (Some(listeners), group) => listeners.deliver(frame, group, wakes),
                // NATS gave the frame to this member of the queue group, but only other members
                // have a listener for its channel.
                (None, Group::Queue(group))
                    if *group == self.queue_group(&subject.name, channel.as_str()) =>
                {
                    if let Some(listener) = subject.any_listener() {
                        listener.sink.misrouted(frame, wakes);
                    }
                    let channel = format!("{} {}", subject.name, channel.as_str());
                    self.monitor.report(BusEvent::Misrouted { channel, count: 1 }, wakes);
                }
                (None, _) => {}
            },
            // The channel is unknown. Deliver the message to one listener, which counts it;
            // delivering it to all would amplify a flood of such messages.
            Err(_) => {
                if let Some(listener) = subject.any_listener() {
                    listener.sink.deliver(Frame::Raw(message), wakes);
                }
            }
        }
    }

    /// Returns the queue group for a channel.
    fn queue_group(&self, subject: &str, local: &str) -> Arc<str> {
        if self.separate.is_empty() {
            return GROUP.into();
        }
        let service = subject.split('.').nth(1).unwrap_or_default();
        let method = local.split('.').next().unwrap_or_default();
        match self.separate.contains(&(service.to_owned(), method.to_owned())) {
            true => format!("{GROUP}.{method}").into(),
            false => GROUP.into(),
        }
    }

    /// Reports a gap to all live listeners, because the client library dropped a message.
    pub(crate) fn gap(&self) {
        let mut wakes = WakeList::new();
        let table = self.table.lock();
        let listeners = table.subjects.values().flat_map(Subject::listeners);
        for listener in listeners.filter(|listener| listener.state == ListenerState::Live) {
            listener.sink.gap(None, &mut wakes);
        }
    }
}

impl Table {
    fn insert(&mut self, key: (Box<str>, Group)) -> u64 {
        self.last_id += 1;
        self.by_name.insert(key.clone(), self.last_id);
        let (name, group) = key;
        let subject = Subject {
            name,
            group,
            state: SubscriptionState::Waiting,
            channels: BTreeMap::new(),
            active: 0,
            refusals: 0,
            round_ended_at: None,
        };
        self.subjects.insert(self.last_id, subject);
        self.waiting.push_back(self.last_id);
        self.last_id
    }

    /// Removes a leaving listener.
    fn remove(&mut self, id: &ListenerId, wakes: &mut WakeList) {
        let Some(subject) = self.subjects.get_mut(&id.subject) else { return };
        if let Some(listeners) = subject.channels.get_mut(id.channel.local()) {
            if let Some(listener) = listeners.all.try_remove(id.key) {
                listener.sink.end(wakes);
            }
            if listeners.all.is_empty() {
                subject.channels.remove(id.channel.local());
            }
        }
        if subject.channels.is_empty() {
            self.subjects.remove(&id.subject);
        }
    }

    /// Takes the readers of all subjects. The caller sets the new state of each subject.
    fn take_readers(&mut self) -> Vec<Arc<Reader>> {
        let mut readers = mem::take(&mut self.closing);
        for subject in self.subjects.values_mut() {
            if let SubscriptionState::Requested(Some(reader)) | SubscriptionState::Live(reader) =
                mem::replace(&mut subject.state, SubscriptionState::Closed)
            {
                readers.push(reader);
            }
        }
        readers
    }
}

impl Subject {
    fn insert(&mut self, channel: &str, sink: Sink, wakes: &mut WakeList) -> usize {
        self.active += 1;
        let listeners = self.channels.entry(channel.into()).or_default();
        let key =
            listeners.all.insert(Listener { sink, state: ListenerState::New, turn: None, leaving: false });
        if let SubscriptionState::Live(_) = self.state {
            listeners.mark_live(key, &self.group, wakes);
        }
        key
    }

    /// Marks a listener as leaving. Returns `false` if there is no such listener.
    fn leave(&mut self, channel: &str, key: usize) -> bool {
        let Some(listeners) = self.channels.get_mut(channel) else { return false };
        let Some(listener) = listeners.all.get_mut(key) else { return false };
        listener.leaving = true;
        if let Some(turn) = listener.turn.take() {
            listeners.turns.remove(turn);
        }
        self.active -= 1;
        true
    }

    /// Returns `true` if a late refusal of the subscription can no longer arrive.
    fn is_certain(&self, now: Time) -> bool {
        self.round_ended_at.is_none_or(|ended| now.since(ended) >= MAX_REFUSAL_DELAY)
    }

    /// Marks a requested subscription as live. Returns `true` if it was not live before.
    fn confirm(&mut self, wakes: &mut WakeList) -> bool {
        let SubscriptionState::Requested(reader) = &mut self.state else { return false };
        let Some(reader) = reader.take() else { return false };
        self.state = SubscriptionState::Live(reader);
        self.refusals = 0;
        self.mark_live(wakes);
        true
    }

    /// Marks all listeners as live.
    fn mark_live(&mut self, wakes: &mut WakeList) {
        for listeners in self.channels.values_mut() {
            let keys: Vec<_> = listeners.all.iter().map(|(key, _)| key).collect();
            keys.into_iter().for_each(|key| listeners.mark_live(key, &self.group, wakes));
        }
    }

    /// Interrupts the live listeners. With `repeat`, also reports the cause to listeners that are
    /// already interrupted.
    fn interrupt(&mut self, repeat: bool, cause: &BusError, wakes: &mut WakeList) {
        let listeners = self.channels.values_mut().flat_map(|listeners| &mut listeners.all);
        for (_, listener) in listeners.filter(|(_, listener)| !listener.leaving) {
            if listener.state == ListenerState::Live || repeat && listener.state == ListenerState::Interrupted
            {
                listener.state = ListenerState::Interrupted;
                listener.sink.interrupted(cause.clone(), wakes);
            }
        }
    }

    /// Fails and removes the listeners that were never live.
    fn fail_new(&mut self, cause: &BusError, wakes: &mut WakeList) {
        for listeners in self.channels.values_mut() {
            let is_new = |listener: &Listener| listener.state == ListenerState::New && !listener.leaving;
            let all = listeners.all.iter();
            let keys: Vec<_> = all.filter(|(_, listener)| is_new(listener)).map(|(key, _)| key).collect();
            self.active -= keys.len();
            keys.into_iter().for_each(|key| listeners.all.remove(key).sink.fail(cause.clone(), wakes));
        }
        self.channels.retain(|_, listeners| !listeners.all.is_empty());
    }

    fn listeners(&self) -> impl Iterator<Item = &Listener> {
        self.channels.values().flat_map(|listeners| listeners.all.iter().map(|(_, listener)| listener))
    }

    /// Returns a listener of any channel, preferably one that is live and not leaving.
    fn any_listener(&self) -> Option<&Listener> {
        let is_ready = |listener: &&Listener| listener.state == ListenerState::Live && !listener.leaving;
        self.listeners().find(is_ready).or_else(|| self.listeners().next())
    }
}

#[cfg(test)]
mod tests;
