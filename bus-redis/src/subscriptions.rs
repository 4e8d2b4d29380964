//! Subscriptions: who here is subscribed to which channel, and what of it the server knows.

use std::collections::BTreeMap;
use std::sync::{Arc, MutexGuard};

use bytes::Bytes;
use psrpc::bus::Sink;
use psrpc::proto::{Frame, FrameLimits};
use psrpc::{BusError, Now, SubscriptionKind, WallTime};
use redis::{Cmd, PushInfo, PushKind, Value};

use crate::command::Command;
use crate::pipe::{Operation, Pipe, queue, refuse};
use crate::{Shared, lock};

/// Names a subscriber of one bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Subscriber(u64);

/// The subscribers, by channel. However many a channel has, the server knows of one subscription.
#[derive(Default)]
pub(crate) struct Table {
    channels: BTreeMap<Box<str>, Subscribers>,
    next: u64,
    /// Why nothing comes in any more, once the bus has stopped.
    stopped: Option<BusError>,
}

#[derive(Default)]
struct Subscribers {
    members: Vec<Member>,
    /// Whether the server has confirmed the subscription, and no end of it was asked for.
    live: bool,
    /// How often the server was asked for the subscription: an answer to an earlier time says nothing.
    asked: u64,
    /// Whose turn it is in the queue: the member after this one.
    turn: u64,
}

struct Member {
    name: Subscriber,
    kind: SubscriptionKind,
    sink: Sink,
    live: bool,
    /// Whether it has unsubscribed. It gets what had come in by then.
    leaving: bool,
}

impl Table {
    /// Hands a frame to the queue subscriber whose turn it is.
    pub(crate) fn deliver_to_queue(&mut self, channel: &str, frame: Frame) {
        if let Some(member) = self.channels.get_mut(channel).and_then(Subscribers::next_of_queue) {
            member.sink.deliver(frame);
        }
    }

    /// Tells the queue subscriber whose turn it is that a frame is lost.
    pub(crate) fn lose_of_queue(&mut self, channel: &str) {
        if let Some(member) = self.channels.get_mut(channel).and_then(Subscribers::next_of_queue) {
            member.sink.gap(Some(1));
        }
    }

    /// Removes subscribers, which end when what this gives is dropped.
    pub(crate) fn remove(&mut self, channel: &str, names: &[Subscriber]) -> Vec<Sink> {
        let Some(subscribers) = self.channels.get_mut(channel) else { return Vec::new() };
        let gone = subscribers.members.extract_if(.., |member| names.contains(&member.name));
        let sinks = gone.map(|member| member.sink).collect();
        if subscribers.members.is_empty() {
            self.channels.remove(channel);
        }
        sinks
    }

    /// The server has confirmed a subscription.
    fn on_live(&mut self, channel: &str, asked: u64) {
        let Some(subscribers) = self.channels.get_mut(channel) else { return };
        if subscribers.asked != asked || !subscribers.is_wanted() {
            return;
        }
        subscribers.live = true;
        for member in subscribers.members.iter_mut().filter(|member| !member.leaving) {
            if member.live {
                // Since the connection was lost nothing came in.
                member.sink.gap(None);
            } else {
                member.live = true;
                member.sink.live();
            }
        }
    }

    /// The server has refused a subscription: gives those who had asked for it.
    fn on_refused(&mut self, channel: &str, asked: u64) -> Vec<Sink> {
        let Some(subscribers) = self.channels.get_mut(channel) else { return Vec::new() };
        if subscribers.asked != asked {
            return Vec::new();
        }
        let names: Vec<_> =
            subscribers.members.iter().filter(|member| !member.leaving).map(|it| it.name).collect();
        self.remove(channel, &names)
    }
}

impl Subscribers {
    /// Whether anybody wants to stay subscribed.
    fn is_wanted(&self) -> bool {
        self.members.iter().any(|member| !member.leaving)
    }

    /// The next in the queue; one that is leaving, or not live yet, only if there is no other.
    fn next_of_queue(&mut self) -> Option<&mut Member> {
        let turn = self.turn;
        let queue = self.members.iter_mut().filter(|member| member.kind == SubscriptionKind::Queue);
        let next = queue
            .min_by_key(|member| (!member.live, member.leaving, member.name.0 <= turn, member.name.0))?;
        self.turn = next.name.0;
        Some(next)
    }

    /// Asks the server for the subscription.
    fn ask(&mut self, channel: &str) -> Change {
        self.live = false;
        self.asked += 1;
        Change::Subscribe { channel: channel.into(), asked: self.asked }
    }
}

/// Subscribes, and gives the name to unsubscribe by.
pub(crate) fn subscribe(
    shared: &Arc<Shared>,
    channel: &str,
    kind: SubscriptionKind,
    sink: Sink,
) -> Subscriber {
    let mut table = shared.table();
    table.next += 1;
    let name = Subscriber(table.next);
    if let Some(error) = table.stopped.clone() {
        drop(table);
        sink.fail(error);
        return name;
    }
    let subscribers = table.channels.entry(channel.into()).or_default();
    let change = if subscribers.is_wanted() { None } else { Some(subscribers.ask(channel)) };
    let live = subscribers.live;
    if live {
        sink.live();
    }
    subscribers.members.push(Member { name, kind, sink, live, leaving: false });
    offer(shared, table, change);
    name
}

/// Unsubscribes. The sink gets what comes in until the server has confirmed that nothing more will.
pub(crate) fn unsubscribe(shared: &Arc<Shared>, channel: &str, name: Subscriber) {
    let mut table = shared.table();
    let Some(subscribers) = table.channels.get_mut(channel) else { return };
    let Some(member) = subscribers.members.iter_mut().find(|member| member.name == name) else { return };
    member.leaving = true;
    if subscribers.is_wanted() {
        drop(table);
        return queue(shared, Command::LetGo { channel: channel.into(), subscribers: vec![name] });
    }
    subscribers.live = false;
    offer(shared, table, [Change::Unsubscribe { channel: channel.into(), name }]);
}

/// Queues changes while the table is locked, so that the server hears of them in the order in which they came about.
fn offer(shared: &Arc<Shared>, table: MutexGuard<'_, Table>, changes: impl IntoIterator<Item = Change>) {
    let refused: Vec<_> =
        changes.into_iter().filter_map(|change| shared.changes.offer(change).err()).collect();
    drop(table);
    refused.into_iter().for_each(|refused| refuse(shared, refused));
}

/// Ends every subscription with an error, and whatever is subscribed later.
pub(crate) fn stop(shared: &Arc<Shared>, error: &BusError) {
    let channels = {
        let mut table = shared.table();
        table.stopped = Some(error.clone());
        std::mem::take(&mut table.channels)
    };
    let members = channels.into_values().flat_map(|subscribers| subscribers.members);
    members.for_each(|member| member.sink.fail(error.clone()));
}

/// A frame has come in.
fn deliver(shared: &Arc<Shared>, channel: &str, bytes: Vec<u8>) {
    let bytes = Bytes::from(bytes);
    // Whoever gets what does not decode finds out by itself.
    let frame = match Frame::decode(&bytes, &FrameLimits::DEFAULT) {
        Ok((frame, _)) => frame,
        Err(_) => Frame::Raw(bytes.clone()),
    };
    let mut table = shared.table();
    let Some(subscribers) = table.channels.get_mut(channel) else { return };
    for member in
        subscribers.members.iter().filter(|member| member.live && member.kind == SubscriptionKind::Plain)
    {
        member.sink.deliver(frame.clone());
    }
    if !subscribers.members.iter().any(|member| member.kind == SubscriptionKind::Queue) {
        return;
    }
    if is_expired(&frame, shared.runtime.now(), shared) {
        // Nobody runs it, so nobody needs the lock; each server finds that it came too late.
        return table.deliver_to_queue(channel, frame);
    }
    drop(table);
    // A compressed frame takes more room than its bytes.
    let (key, size) = (lock::key(&bytes), bytes.len().max(frame.value_len()));
    queue(shared, Command::Lock { channel: channel.into(), key, frame, size });
}

fn is_expired(frame: &Frame, now: Now, shared: &Shared) -> bool {
    let Frame::Request(request) = frame else { return false };
    now.wall >= WallTime::from_unix_nanos(request.expiry) + shared.options.skew_allowance
}

/// A change of what this connection is subscribed to.
pub(crate) enum Change {
    Subscribe { channel: Box<str>, asked: u64 },
    Unsubscribe { channel: Box<str>, name: Subscriber },
}

impl Operation for Change {
    fn pipe(shared: &Shared) -> &Pipe<Self> {
        &shared.changes
    }

    fn command(&self) -> Option<Cmd> {
        let (name, channel) = match self {
            Change::Subscribe { channel, .. } => ("SUBSCRIBE", channel),
            Change::Unsubscribe { channel, .. } => ("UNSUBSCRIBE", channel),
        };
        let mut command = redis::cmd(name);
        command.arg(&**channel);
        Some(command)
    }

    fn done(self, shared: &Arc<Shared>, answer: Result<Value, BusError>) {
        match (self, answer) {
            (Change::Subscribe { channel, asked }, Ok(Value::Push { .. })) => {
                shared.table().on_live(&channel, asked);
            }
            (Change::Subscribe { channel, asked }, Ok(answer)) => {
                let answer = shared.refused(answer);
                let error = BusError::new(format!("{answer}; subscribing to {channel}"));
                let refused = shared.table().on_refused(&channel, asked);
                refused.into_iter().for_each(|sink| sink.fail(error.clone()));
            }
            // It is asked for again with the next connection.
            (Change::Subscribe { .. }, Err(_)) => {}
            // Behind the locks of what came in before.
            (Change::Unsubscribe { channel, name }, _) => {
                queue(shared, Command::LetGo { channel, subscribers: vec![name] });
            }
        }
    }

    fn on_connected(shared: &Arc<Shared>) {
        let mut table = shared.table();
        let wanted = table.channels.iter_mut().filter(|(_, subscribers)| subscribers.is_wanted());
        let changes: Vec<_> = wanted.map(|(channel, subscribers)| subscribers.ask(channel)).collect();
        offer(shared, table, changes);
    }

    fn on_ended(shared: &Arc<Shared>) {
        // Not before: whoever leaves gets what came in until the server had confirmed that.
        shared.commands.close();
    }

    /// Frames are lost from here on, and until the subscriptions are live again: a gap at either end.
    fn on_lost(shared: &Arc<Shared>) {
        for subscribers in shared.table().channels.values_mut() {
            subscribers.live = false;
            subscribers.members.iter().filter(|member| member.live).for_each(|member| member.sink.gap(None));
        }
    }

    fn on_pushed(shared: &Arc<Shared>, info: PushInfo) {
        let PushInfo { kind: PushKind::Message, data } = info else { return };
        let Ok([Value::BulkString(channel), Value::BulkString(frame)]) = <[Value; 2]>::try_from(data) else {
            return;
        };
        if let Ok(channel) = str::from_utf8(&channel) {
            deliver(shared, channel, frame);
        }
    }
}
