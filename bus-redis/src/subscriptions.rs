//! Subscriptions: what the server is asked for, and what it pushes.

use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use psrpc::bus::{BusEvent, LockGuard, Monitor, Sink, WakeList};
use psrpc::proto::{Frame, FrameLimits};
use psrpc::{BusError, SubscriptionKind, WallTime};
use redis::{Cmd, PushInfo, PushKind, Value};

use crate::backoff;
use crate::command::Commands;
use crate::connection::{Failure, Purpose};
use crate::outage::Side;
use crate::queue::{ConnectionQueue, Operation};
use crate::subscribers::{Leaving, SubscriberId, Table};

/// The delay before the server is asked again for a subscription that it refused: the first and the
/// longest.
const FIRST_DELAY: Duration = Duration::from_millis(50);
const LONGEST_DELAY: Duration = Duration::from_secs(1);

/// A change of what the connection is subscribed to.
pub(crate) enum SubscriptionChange {
    Subscribe {
        channel: Box<str>,
        /// How often the channel was asked for by then: an answer to an earlier time says nothing.
        generation: u64,
    },
    Unsubscribe {
        channel: Box<str>,
        /// The last subscriber, which is removed afterwards.
        last: SubscriberId,
    },
}

impl Operation for SubscriptionChange {}

/// What the connection for subscriptions shares with those who use it.
pub(crate) struct Subscriptions {
    pub(crate) queue: Arc<ConnectionQueue<SubscriptionChange>>,
    commands: Arc<Commands>,
    monitor: Monitor,
}

impl Subscriptions {
    pub(crate) fn new(commands: Arc<Commands>, monitor: Monitor) -> Self {
        Self { queue: Arc::new(ConnectionQueue::new(usize::MAX)), commands, monitor }
    }

    /// Subscribes, and returns what to unsubscribe by; `None` if the bus has stopped.
    pub(crate) fn subscribe(
        &self,
        channel: &str,
        kind: SubscriptionKind,
        sink: Sink,
        wakes: &mut WakeList,
    ) -> Option<SubscriberId> {
        let mut table = self.commands.table.lock();
        let (id, generation) = table.insert(channel, kind, sink, wakes)?;
        if let Some(generation) = generation {
            self.ask(&table, channel.into(), generation, wakes);
        }
        Some(id)
    }

    /// Unsubscribes. The sink gets what comes in until the server has confirmed that nothing more
    /// will.
    pub(crate) fn unsubscribe(&self, channel: &str, id: SubscriberId) {
        let mut wakes = WakeList::new();
        let mut table = self.commands.table.lock();
        let is_told = match table.leave(channel, id) {
            None => return,
            Some(Leaving::OthersStay) => false,
            Some(Leaving::Last) => {
                let change = SubscriptionChange::Unsubscribe { channel: channel.into(), last: id };
                self.queue.push(change, &mut wakes).is_ok()
            }
        };
        drop(table);
        if !is_told {
            self.commands.remove(channel.into(), id);
        }
    }

    /// Asks the server for a channel. The table is locked, so that the server hears of changes in
    /// the order in which they came about. Without a connection the next one asks.
    fn ask(&self, _: &LockGuard<'_, Table>, channel: Box<str>, generation: u64, wakes: &mut WakeList) {
        let _ = self.queue.push(SubscriptionChange::Subscribe { channel, generation }, wakes);
    }

    /// Asks again for a channel that the server has refused.
    fn ask_again(&self, channel: Box<str>, generation: u64) {
        let mut wakes = WakeList::new();
        let mut table = self.commands.table.lock();
        if let Some(generation) = table.ask_again(&channel, generation) {
            self.ask(&table, channel, generation, &mut wakes);
        }
    }

    /// A message was pushed.
    pub(crate) fn on_pushed(&self, info: PushInfo) {
        let PushInfo { kind: PushKind::Message, data } = info else { return };
        let Ok([Value::BulkString(channel), Value::BulkString(frame)]) = <[Value; 2]>::try_from(data) else {
            return;
        };
        if let Ok(channel) = str::from_utf8(&channel) {
            self.deliver(channel, frame.into());
        }
    }

    fn deliver(&self, channel: &str, bytes: Bytes) {
        // A subscriber that gets bytes that do not decode learns why by itself.
        let frame = match Frame::decode(&bytes, &FrameLimits::DEFAULT) {
            Ok((frame, _)) => frame,
            Err(_) => Frame::Raw(bytes.clone()),
        };
        let is_expired = self.is_expired(&frame);
        let mut wakes = WakeList::new();
        let mut table = self.commands.table.lock();
        if !table.deliver(channel, &frame, &mut wakes) {
            return;
        }
        if is_expired {
            // Nobody runs it, so nobody needs the lock; each server finds that it came too late.
            return table.deliver_to_queue(channel, frame, &mut wakes);
        }
        drop(table);
        self.commands.lock(channel, &bytes, frame);
    }

    fn is_expired(&self, frame: &Frame) -> bool {
        let Frame::Request(request) = frame else { return false };
        let connector = &self.commands.connector;
        let expiry = WallTime::from_unix_nanos(request.expiry) + connector.options.skew_allowance;
        connector.runtime.now().wall >= expiry
    }
}

/// Sends changes of subscriptions, and hears what the server says of them.
pub(crate) struct SubscriptionSender(pub(crate) Arc<Subscriptions>);

impl SubscriptionSender {
    /// The server has refused a subscription: tells the subscribers, and asks again later.
    fn refused(&self, channel: Box<str>, generation: u64, cause: &BusError) {
        let mut wakes = WakeList::new();
        let cause = BusError::new(format!("{cause}; subscribing to {channel}"));
        let refused = self.0.commands.table.lock().refused(&channel, generation, &cause, &mut wakes);
        let Some(refused) = refused else { return };
        if refused.first {
            let event = BusEvent::SubscriptionRefused { channel: channel.clone().into(), cause };
            self.0.monitor.report(event, &mut wakes);
        }
        drop(wakes);
        let Some(refusals) = refused.again_after else { return };
        let connector = &self.0.commands.connector;
        let noise = connector.runtime.now().wall.as_unix_nanos();
        let sleep = connector.sleep(backoff::delay(FIRST_DELAY, refusals - 1, LONGEST_DELAY, noise));
        // The bus may be gone before it is over.
        let subscriptions: Weak<_> = Arc::downgrade(&self.0);
        connector.runtime.spawn(Box::pin(async move {
            sleep.await;
            if let Some(subscriptions) = subscriptions.upgrade() {
                subscriptions.ask_again(channel, generation);
            }
        }));
    }
}

impl Purpose for SubscriptionSender {
    type Operation = SubscriptionChange;

    const SIDE: Side = Side::Subscriptions;

    fn queue(&self) -> &Arc<ConnectionQueue<SubscriptionChange>> {
        &self.0.queue
    }

    fn command(&self, change: &mut SubscriptionChange) -> Option<Cmd> {
        let (name, channel) = match change {
            SubscriptionChange::Subscribe { channel, .. } => ("SUBSCRIBE", channel),
            SubscriptionChange::Unsubscribe { channel, .. } => ("UNSUBSCRIBE", channel),
        };
        let mut command = redis::cmd(name);
        command.arg(&**channel);
        Some(command)
    }

    fn done(&self, change: SubscriptionChange, answer: Result<Value, Failure>) {
        match (change, answer) {
            (SubscriptionChange::Subscribe { channel, generation }, Ok(Value::Push { .. })) => {
                let mut wakes = WakeList::new();
                self.0.commands.table.lock().confirmed(&channel, generation, &mut wakes);
            }
            (SubscriptionChange::Subscribe { channel, generation }, Ok(answer)) => {
                let cause = self.0.commands.connector.unexpected(&answer);
                self.refused(channel, generation, &cause);
            }
            (SubscriptionChange::Subscribe { channel, generation }, Err(Failure::Refused(cause))) => {
                self.refused(channel, generation, &cause);
            }
            // The next connection asks for it.
            (SubscriptionChange::Subscribe { .. }, Err(Failure::Lost(_))) => {}
            // Behind the locks of what came in before.
            (SubscriptionChange::Unsubscribe { channel, last }, _) => self.0.commands.remove(channel, last),
        }
    }

    fn receiver(&self) -> impl Fn(PushInfo) + Send + Sync + 'static {
        let subscriptions = Arc::clone(&self.0);
        move |info| subscriptions.on_pushed(info)
    }

    fn on_connected(&self) {
        let mut wakes = WakeList::new();
        let mut table = self.0.commands.table.lock();
        for (channel, generation) in table.ask_all() {
            self.0.ask(&table, channel, generation, &mut wakes);
        }
    }

    /// Frames are lost from here on, until the subscriptions are live again.
    fn on_lost(&self, cause: &BusError) {
        let mut wakes = WakeList::new();
        self.0.commands.table.lock().lost(cause, &mut wakes);
    }

    /// Not before: a subscriber that leaves gets what came in until the server had confirmed that.
    fn on_ended(&self) {
        self.0.commands.queue.close(&mut WakeList::new());
    }
}
