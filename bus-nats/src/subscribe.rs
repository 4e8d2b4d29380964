//! Subscribing: subjects, who listens to them here, and how their messages find the listeners.
//!
//! All channels with one subject share one NATS subscription for each kind. Its state at the
//! server:
//!
//! ```text
//!           taken into a round             the next round has ended
//!  Wanted ----------------------> Asked ----------------------------> Live
//!    ^                              |                                   |
//!    |  the delay is over           |  the server refuses it            |
//!    +------------------- Refused <-+-----------------------------------+
//!
//!  any --- the connection was lost --> Wanted
//!  any --- the last listener leaves --> Left: the next listener gets a new subscription
//! ```
//!
//! What the server is asked for goes out in rounds, each of which ends with a round trip: whatever
//! the server had handed out by then has been delivered. Whatever it refused is told by another
//! task of the client library, which may be late: so a subscription is called live at the end of
//! the round after its own. If the task is later still, the subscription is live for a moment, and
//! then interrupted.

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
use crate::listeners::{Group, Listener, Listeners, Notified};
use crate::options::{NatsOptions, RETRY_DELAY, delay};
use crate::reader::Reader;
use crate::signal::Signal;

/// How many subscriptions are asked for and not confirmed at most. The server may refuse each, and
/// the client library keeps 128 errors.
const MOST_ASKED: usize = 64;
/// The same after refusals came so late that some may be lost; it is approached in steps.
const MOST_ASKED_WITH_CARE: usize = 4;

/// How late a refusal is at most, after the end of the round that has drawn it. Where a refusal
/// names its subject nothing rests on that.
const LATE: Duration = Duration::from_millis(100);

/// The queue group that queue subscriptions share (PROTOCOL section 2), unless an option gives them
/// their own.
const GROUP: &str = "bus";

/// The subscriptions of a bus.
pub(crate) struct Subscriptions {
    table: Lock<Table>,
    servers: String,
    limits: FrameLimits,
    /// The updates whose subscribers have a queue group of their own, by service and method.
    separate: BTreeSet<(String, String)>,
    monitor: Monitor,
    /// Tells the bus's task that there is something to ask for.
    work: Arc<Signal>,
}

#[derive(Default)]
struct Table {
    subjects: BTreeMap<u64, Subject>,
    /// Those that are not left.
    by_name: BTreeMap<(Box<str>, Group), u64>,
    last: u64,
    /// What the next rounds ask for.
    wanted: VecDeque<u64>,
    /// The refused subjects, by when they are asked for again.
    retries: BTreeSet<(Time, u64)>,
    /// What the next round unsubscribes.
    departing: Vec<Arc<Reader>>,
    /// Who goes with the next round.
    leaving: Vec<ListenerId>,
    /// What the next round confirms: the subjects that the last one asked for.
    asked: Vec<u64>,
    /// How many subjects may be asked for and not confirmed, and how many at most.
    window: usize,
    most_asked: usize,
    /// When what was asked for may be confirmed, if that is not at the end of the next round.
    settled_at: Option<Time>,
    /// Until when nothing is asked for, since refusals of what was withdrawn may come.
    quiet_until: Option<Time>,
    connected: bool,
    stopped: bool,
}

/// A subject that is subscribed to in one way.
struct Subject {
    name: Box<str>,
    group: Group,
    state: SubscriptionState,
    /// By their local names.
    channels: BTreeMap<Box<str>, Listeners>,
    /// How many listeners do not leave.
    staying: usize,
    /// How many times in a row the server has refused it.
    refusals: u32,
    /// When the round has ended that asked for it; `None` if a message has come since, which proves
    /// more.
    answered_at: Option<Time>,
}

/// The state of a subject's subscription at the server.
enum SubscriptionState {
    Wanted,
    /// The reader is there once the client library has been told.
    Asked(Option<Arc<Reader>>),
    Live(Arc<Reader>),
    Refused,
    Left,
}

/// Names a listener.
#[derive(Clone, Debug)]
pub(crate) struct ListenerId {
    subject: u64,
    channel: Channel,
    key: usize,
}

/// What the server is told at a time.
pub(crate) struct Round {
    pub(crate) asks: Vec<Ask>,
    pub(crate) departing: Vec<Arc<Reader>>,
    leaving: Vec<ListenerId>,
    asked: Vec<u64>,
}

/// A subject to subscribe to.
pub(crate) struct Ask {
    pub(crate) id: u64,
    name: String,
    group: Group,
}

impl Ask {
    /// Tells the client library.
    pub(crate) async fn subscribe(&self, client: &Client) -> Result<Subscriber, SubscribeError> {
        match &self.group {
            Group::Plain => client.subscribe(self.name.clone()).await,
            Group::Queue(group) => client.queue_subscribe(self.name.clone(), group.to_string()).await,
        }
    }
}

impl Round {
    pub(crate) fn is_empty(&self) -> bool {
        let Round { asks, departing, leaving, asked } = self;
        asks.is_empty() && departing.is_empty() && leaving.is_empty() && asked.is_empty()
    }
}

impl Subscriptions {
    pub(crate) fn new(servers: String, options: &NatsOptions, monitor: Monitor, work: Arc<Signal>) -> Self {
        let table = Table { window: MOST_ASKED, most_asked: MOST_ASKED, ..Table::default() };
        let (limits, separate) = (options.frame_limits, options.separate_updates.clone());
        Self { table: Lock::new(table), servers, limits, separate, monitor, work }
    }

    // --- listeners -------------------------------------------------------------------------------

    /// Adds a listener. Returns `None` if it has failed at once.
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
            subject.state = SubscriptionState::Wanted;
            table.wanted.push_back(id);
        }
        drop(table);
        wakes.push(self.work.waker());
        Some(ListenerId { subject: id, channel: channel.clone(), key })
    }

    /// Lets a listener leave: it gets what is on its way to it, up to the end of the next round.
    pub(crate) fn unsubscribe(&self, id: ListenerId) {
        let mut wakes = WakeList::new();
        let mut table = self.table.lock();
        let Some(subject) = table.subjects.get_mut(&id.subject) else { return };
        if !subject.leave(id.channel.local(), id.key) {
            return;
        }
        if subject.staying == 0 {
            let key = (mem::take(&mut subject.name), subject.group.clone());
            if let SubscriptionState::Asked(Some(reader)) | SubscriptionState::Live(reader) =
                mem::replace(&mut subject.state, SubscriptionState::Left)
            {
                table.departing.push(reader);
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

    /// There is a connection.
    pub(crate) fn connected(&self) {
        self.table.lock().connected = true;
    }

    /// From here on less is asked for at a time.
    pub(crate) fn take_care(&self) {
        let mut table = self.table.lock();
        table.most_asked = (table.most_asked / 4).max(MOST_ASKED_WITH_CARE);
        table.window = table.window.min(table.most_asked);
    }

    /// The connection was lost, with a round or without one.
    pub(crate) fn lost(&self, round: Option<Round>, cause: &BusError) {
        let mut readers = self.table.lock().take_readers();
        readers.extend(round.iter().flat_map(|round| round.departing.iter().cloned()));
        // What had arrived is delivered first.
        readers.iter().for_each(Reader::close);
        let mut wakes = WakeList::new();
        let mut table = self.table.lock();
        table.connected = false;
        let leaving = mem::take(&mut table.leaving);
        for id in leaving.into_iter().chain(round.into_iter().flat_map(|round| round.leaving)) {
            table.remove(&id, &mut wakes);
        }
        table.retries.clear();
        table.asked.clear();
        table.wanted.clear();
        (table.settled_at, table.quiet_until) = (None, None);
        let Table { subjects, wanted, .. } = &mut *table;
        for (id, subject) in subjects {
            subject.state = SubscriptionState::Wanted;
            subject.interrupt(false, cause, &mut wakes);
            wanted.push_back(*id);
        }
    }

    /// Fails all listeners, and those to come.
    pub(crate) fn stop(&self) {
        let readers = self.table.lock().take_readers();
        readers.iter().for_each(Reader::close);
        let mut wakes = WakeList::new();
        let mut table = self.table.lock();
        table.stopped = true;
        for mut subject in mem::take(&mut table.subjects).into_values() {
            let listeners = subject.channels.values_mut().flat_map(|listeners| listeners.all.drain());
            for Listener { sink, leaves, .. } in listeners {
                if leaves { sink.end(&mut wakes) } else { sink.fail(Failure::Stopped.into(), &mut wakes) }
            }
        }
        table.by_name = Default::default();
    }

    // --- rounds ----------------------------------------------------------------------------------

    /// Moves on what has waited for its time, and returns when the next time comes.
    pub(crate) fn pass_time(&self, now: Time) -> Option<Time> {
        let mut table = self.table.lock();
        table.settled_at = table.settled_at.filter(|at| *at > now);
        table.quiet_until = table.quiet_until.filter(|until| *until > now);
        while let Some((at, id)) = table.retries.first().copied() {
            if at > now {
                break;
            }
            table.retries.pop_first();
            if let Some(subject) = table.subjects.get_mut(&id)
                && let SubscriptionState::Refused = subject.state
            {
                subject.state = SubscriptionState::Wanted;
                table.wanted.push_back(id);
            }
        }
        let retry_at = table.retries.first().map(|(at, _)| *at);
        [table.settled_at, table.quiet_until, retry_at].into_iter().flatten().min()
    }

    /// Takes what the server is to be told next.
    pub(crate) fn begin_round(&self) -> Round {
        let mut table = self.table.lock();
        let (departing, leaving) = (mem::take(&mut table.departing), mem::take(&mut table.leaving));
        let room = match table.quiet_until {
            None => table.window.saturating_sub(table.asked.len()),
            Some(_) => 0,
        };
        let asked = if table.settled_at.is_none() { mem::take(&mut table.asked) } else { Vec::new() };
        let mut asks = Vec::new();
        while asks.len() < room
            && let Some(id) = table.wanted.pop_front()
        {
            if let Some(subject) = table.subjects.get_mut(&id)
                && let SubscriptionState::Wanted = subject.state
            {
                subject.state = SubscriptionState::Asked(None);
                asks.push(Ask { id, name: subject.name.to_string(), group: subject.group.clone() });
            }
        }
        Round { asks, departing, leaving, asked }
    }

    /// The client library was told to subscribe to a subject.
    pub(crate) fn asked(self: &Arc<Self>, id: u64, subscriber: impl Into<Option<Subscriber>>) {
        let subscriptions = Arc::clone(self);
        let reader =
            Reader::new(subscriber.into(), move |message, wakes| subscriptions.route(id, message, wakes));
        let mut table = self.table.lock();
        match table.subjects.get_mut(&id) {
            Some(Subject { state: SubscriptionState::Asked(known @ None), .. }) => {
                *known = Some(Arc::clone(&reader))
            }
            // It was refused meanwhile, or left. The queue's messages may come all the same.
            _ => table.departing.push(Arc::clone(&reader)),
        }
        drop(table);
        reader.read();
    }

    /// The round trip has ended.
    pub(crate) fn end_round(&self, round: Round, now: Time) {
        round.departing.iter().for_each(Reader::close);
        let mut wakes = WakeList::new();
        let mut table = self.table.lock();
        for id in &round.leaving {
            table.remove(id, &mut wakes);
        }
        for id in round.asked {
            if let Some(subject) = table.subjects.get_mut(&id)
                && subject.confirm(&mut wakes)
            {
                table.window = (2 * table.window).min(table.most_asked);
            }
        }
        // One at a time: then it is to be known which one a refusal is about.
        if table.window == 1 && !round.asks.is_empty() {
            table.settled_at = Some(now + LATE);
        }
        for Ask { id, .. } in round.asks {
            if let Some(subject) = table.subjects.get_mut(&id)
                && let SubscriptionState::Asked(_) = subject.state
            {
                subject.answered_at = Some(now);
                table.asked.push(id);
            }
        }
    }

    // --- refusals --------------------------------------------------------------------------------

    /// The server refuses the subscriptions to a subject, of one group or of any. Returns `true` if
    /// one was called live.
    pub(crate) fn refused(&self, name: &str, group: Option<&Group>, text: &str, now: Now) -> bool {
        let all = (Box::<str>::from(name), Group::Plain)..;
        let table = self.table.lock();
        let of_name = table.by_name.range(all).take_while(|((known, _), _)| **known == *name);
        let of_group = of_name.filter(|((_, known), _)| group.is_none_or(|group| group == known));
        let ids: Vec<_> = of_group.map(|(_, id)| *id).collect();
        drop(table);
        ids.into_iter().map(|id| self.refuse(id, text, now)).fold(false, |any, was_live| any | was_live)
    }

    /// The server refuses a subscription, and does not say which. If it may be one of several, all
    /// of them are asked for again, one at a time.
    pub(crate) fn refused_one(&self, text: &str, now: Now) {
        let mut wakes = WakeList::new();
        let mut table = self.table.lock();
        // It answers what was withdrawn.
        if table.quiet_until.is_some() {
            return;
        }
        let may_be = |(_, subject): &(&u64, &Subject)| match subject.state {
            SubscriptionState::Asked(_) => true,
            SubscriptionState::Live(_) => !subject.is_certain(now.time),
            _ => false,
        };
        let candidates: Vec<_> = table.subjects.iter().filter(may_be).map(|(id, _)| *id).collect();
        table.window = 1;
        if let [id] = candidates[..] {
            // The next one need not wait.
            table.settled_at = None;
            drop(table);
            self.refuse(id, text, now);
            return self.work.notify();
        }
        table.quiet_until = Some(now.time + LATE);
        for id in candidates.into_iter().rev() {
            let Some(subject) = table.subjects.get_mut(&id) else { continue };
            let cause = self.refusal(&subject.name, text);
            let reader = match mem::replace(&mut subject.state, SubscriptionState::Wanted) {
                SubscriptionState::Live(reader) => Some(reader),
                SubscriptionState::Asked(reader) => reader,
                _ => None,
            };
            subject.interrupt(false, &cause, &mut wakes);
            table.departing.extend(reader);
            table.wanted.push_front(id);
        }
        wakes.push(self.work.waker());
    }

    fn refuse(&self, id: u64, text: &str, now: Now) -> bool {
        let mut wakes = WakeList::new();
        let mut table = self.table.lock();
        let Some(subject) = table.subjects.get_mut(&id) else { return false };
        let (reader, was_live) = match mem::replace(&mut subject.state, SubscriptionState::Refused) {
            SubscriptionState::Asked(reader) => (reader, false),
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
        let (key, refusals) = ((subject.name.clone(), subject.group.clone()), subject.refusals as usize);
        if subject.staying > 0 {
            table.retries.insert((now.time + delay(refusals + 1, RETRY_DELAY), id));
            wakes.push(self.work.waker());
        } else {
            subject.state = SubscriptionState::Left;
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

    /// Hands a message to the listeners that it is for.
    pub(crate) fn route(&self, subject: u64, message: Bytes, wakes: &mut WakeList) {
        let decoded = Frame::decode(&message, &self.limits);
        let mut table = self.table.lock();
        let Some(subject) = table.subjects.get_mut(&subject) else { return };
        subject.answered_at = None;
        subject.confirm(wakes);
        match decoded {
            Ok((frame, channel)) => match (subject.channels.get_mut(channel.as_str()), &subject.group) {
                (Some(listeners), group) => listeners.deliver(frame, group, wakes),
                // The group that it is meant for gets it too, or others do.
                (None, Group::Queue(group))
                    if *group == self.queue_group(&subject.name, channel.as_str()) =>
                {
                    if let Some(listener) = subject.anybody() {
                        listener.sink.misrouted(frame, wakes);
                    }
                    let channel = format!("{} {}", subject.name, channel.as_str());
                    self.monitor.report(BusEvent::Misrouted { channel, count: 1 }, wakes);
                }
                (None, _) => {}
            },
            // It names no channel. One gets it, to count it: more would make a flood of such frames
            // a larger one.
            Err(_) => {
                if let Some(listener) = subject.anybody() {
                    listener.sink.deliver(Frame::Raw(message), wakes);
                }
            }
        }
    }

    /// Returns the queue group of the subscriptions to a channel.
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

    /// The client library had no room for a message of some subscription.
    pub(crate) fn gap(&self) {
        let mut wakes = WakeList::new();
        let table = self.table.lock();
        let listeners = table.subjects.values().flat_map(Subject::listeners);
        for listener in listeners.filter(|listener| listener.told == Notified::Live) {
            listener.sink.gap(None, &mut wakes);
        }
    }
}

impl Table {
    fn insert(&mut self, key: (Box<str>, Group)) -> u64 {
        self.last += 1;
        self.by_name.insert(key.clone(), self.last);
        let (name, group) = key;
        let subject = Subject {
            name,
            group,
            state: SubscriptionState::Wanted,
            channels: BTreeMap::new(),
            staying: 0,
            refusals: 0,
            answered_at: None,
        };
        self.subjects.insert(self.last, subject);
        self.wanted.push_back(self.last);
        self.last
    }

    /// Removes a listener that leaves.
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

    /// Takes the readers of all subjects, whose states are to be changed next.
    fn take_readers(&mut self) -> Vec<Arc<Reader>> {
        let mut readers = mem::take(&mut self.departing);
        for subject in self.subjects.values_mut() {
            if let SubscriptionState::Asked(Some(reader)) | SubscriptionState::Live(reader) =
                mem::replace(&mut subject.state, SubscriptionState::Left)
            {
                readers.push(reader);
            }
        }
        readers
    }
}

impl Subject {
    fn insert(&mut self, channel: &str, sink: Sink, wakes: &mut WakeList) -> usize {
        self.staying += 1;
        let listeners = self.channels.entry(channel.into()).or_default();
        let key = listeners.all.insert(Listener { sink, told: Notified::Nothing, turn: None, leaves: false });
        if let SubscriptionState::Live(_) = self.state {
            listeners.revive(key, &self.group, wakes);
        }
        key
    }

    /// Marks a listener as leaving. Returns `false` if there is no such listener.
    fn leave(&mut self, channel: &str, key: usize) -> bool {
        let Some(listeners) = self.channels.get_mut(channel) else { return false };
        let Some(listener) = listeners.all.get_mut(key) else { return false };
        listener.leaves = true;
        if let Some(turn) = listener.turn.take() {
            listeners.turns.remove(turn);
        }
        self.staying -= 1;
        true
    }

    /// Returns `true` if no refusal can come any more that is late.
    fn is_certain(&self, now: Time) -> bool {
        self.answered_at.is_none_or(|answered| now.since(answered) >= LATE)
    }

    /// The server has the subscription, if it was asked for it. Returns `true` if that is news.
    fn confirm(&mut self, wakes: &mut WakeList) -> bool {
        let SubscriptionState::Asked(reader) = &mut self.state else { return false };
        let Some(reader) = reader.take() else { return false };
        self.state = SubscriptionState::Live(reader);
        self.refusals = 0;
        self.revive(wakes);
        true
    }

    /// Tells the listeners that they are live, or are again.
    fn revive(&mut self, wakes: &mut WakeList) {
        for listeners in self.channels.values_mut() {
            let keys: Vec<_> = listeners.all.iter().map(|(key, _)| key).collect();
            keys.into_iter().for_each(|key| listeners.revive(key, &self.group, wakes));
        }
    }

    /// Tells the live listeners that they are interrupted, and on demand those that know it, with a better cause.
    fn interrupt(&mut self, again: bool, cause: &BusError, wakes: &mut WakeList) {
        let listeners = self.channels.values_mut().flat_map(|listeners| &mut listeners.all);
        for (_, listener) in listeners.filter(|(_, listener)| !listener.leaves) {
            if listener.told == Notified::Live || again && listener.told == Notified::Interrupted {
                listener.told = Notified::Interrupted;
                listener.sink.interrupted(cause.clone(), wakes);
            }
        }
    }

    /// Fails the listeners that were never live.
    fn fail_new(&mut self, cause: &BusError, wakes: &mut WakeList) {
        for listeners in self.channels.values_mut() {
            let is_new = |listener: &Listener| listener.told == Notified::Nothing && !listener.leaves;
            let all = listeners.all.iter();
            let keys: Vec<_> = all.filter(|(_, listener)| is_new(listener)).map(|(key, _)| key).collect();
            self.staying -= keys.len();
            keys.into_iter().for_each(|key| listeners.all.remove(key).sink.fail(cause.clone(), wakes));
        }
        self.channels.retain(|_, listeners| !listeners.all.is_empty());
    }

    fn listeners(&self) -> impl Iterator<Item = &Listener> {
        self.channels.values().flat_map(|listeners| listeners.all.iter().map(|(_, listener)| listener))
    }

    /// Returns a listener of any channel: one that stays and knows that it is live, if there is
    /// any.
    fn anybody(&self) -> Option<&Listener> {
        let is_ready = |listener: &&Listener| listener.told == Notified::Live && !listener.leaves;
        self.listeners().find(is_ready).or_else(|| self.listeners().next())
    }
}

#[cfg(test)]
mod tests;
