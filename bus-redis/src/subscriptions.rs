//! The subscription connection: subscribe commands, and messages pushed by the server.

use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use psrpc::bus::{BusEvent, LockGuard, Monitor, Sink, WakeList};
use psrpc::proto::{Frame, FrameLimits};
use psrpc::{BusError, SubscriptionKind, WallTime};
use redis::{Cmd, PushInfo, PushKind, Value};

use crate::command::Commands;
use crate::connection::{ConnectionRole, Failure};
use crate::outage::Side;
use crate::probe::Probe;
use crate::queue::{ConnectionQueue, Operation};
use crate::subscribers::{Leaving, SubscriberId, Table};

/// The first and the longest delay before the bus retries a refused subscription.
const FIRST_DELAY: Duration = Duration::from_millis(50);
const LONGEST_DELAY: Duration = Duration::from_secs(1);

/// A change to the subscriptions of the connection.
pub(crate) enum SubscriptionChange {
    Subscribe {
        channel: Box<str>,
        /// The generation of the subscription. Replies to earlier generations are ignored.
        generation: u64,
    },
    Unsubscribe {
        channel: Box<str>,
        /// The last subscriber, removed after the server has confirmed.
        last: SubscriberId,
    },
}

impl Operation for SubscriptionChange {}

/// State shared between the subscription connection and the bus.
pub(crate) struct Subscriptions {
    pub(crate) queue: Arc<ConnectionQueue<SubscriptionChange>>,
    commands: Arc<Commands>,
    monitor: Monitor,
    probe: Arc<Probe>,
}

impl Subscriptions {
    pub(crate) fn new(commands: Arc<Commands>, monitor: Monitor, probe: Arc<Probe>) -> Self {
        Self { queue: Arc::new(ConnectionQueue::new(usize::MAX)), commands, monitor, probe }
    }

    /// Subscribes and returns the id of the subscriber, or `None` if the bus has stopped.
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
            self.request(&table, channel.into(), generation, wakes);
        }
        Some(id)
    }

    /// Unsubscribes. The sink receives frames until the server confirms that no more will follow.
    pub(crate) fn unsubscribe(&self, channel: &str, id: SubscriberId) {
        let mut wakes = WakeList::new();
        let mut table = self.commands.table.lock();
        let is_queued = match table.leave(channel, id) {
            None => return,
            Some(Leaving::OthersRemain) => false,
            Some(Leaving::Last) => {
                let change = SubscriptionChange::Unsubscribe { channel: channel.into(), last: id };
                self.queue.push(change, &mut wakes).is_ok()
            }
        };
        drop(table);
        if !is_queued {
            self.commands.remove(channel.into(), id);
        }
    }

    /// Queues a subscribe command. The table is locked so that commands keep the order of the
    /// changes. If the connection is down, `on_connected` subscribes instead.
    fn request(&self, _: &LockGuard<'_, Table>, channel: Box<str>, generation: u64, wakes: &mut WakeList) {
        let _ = self.queue.push(SubscriptionChange::Subscribe { channel, generation }, wakes);
    }

    /// Subscribes again after a refusal.
    fn retry(&self, channel: Box<str>, generation: u64) {
        let mut wakes = WakeList::new();
        let mut table = self.commands.table.lock();
        if let Some(generation) = table.retry(&channel, generation) {
            self.request(&table, channel, generation, &mut wakes);
        }
    }

    /// Handles a message pushed by the server.
    pub(crate) fn on_pushed(&self, info: PushInfo) {
        let PushInfo { kind: PushKind::Message, data } = info else { return };
        let Ok([Value::BulkString(channel), Value::BulkString(frame)]) = <[Value; 2]>::try_from(data) else {
            return;
        };
        if self.probe.received(&channel, &frame) {
            return;
        }
        let prefix = &self.commands.connector.options.channel_prefix;
        if let Some(channel) =
            str::from_utf8(&channel).ok().and_then(|channel| channel.strip_prefix(&**prefix))
        {
            self.deliver(channel, frame.into());
        }
    }

    fn deliver(&self, channel: &str, bytes: Bytes) {
        // The subscriber decodes the raw bytes again and gets the error.
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
            // No server runs it, so it needs no lock. Every server counts it as expired.
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

/// Sends subscribe and unsubscribe commands and handles the replies.
pub(crate) struct SubscriptionSender(pub(crate) Arc<Subscriptions>);

impl SubscriptionSender {
    /// Reports a refused subscription to its subscribers, and schedules a retry.
    fn refused(&self, channel: Box<str>, generation: u64, cause: &BusError) {
        let mut wakes = WakeList::new();
        let cause = BusError::new(format!("cannot subscribe to {channel}: {cause}"));
        let refused = self.0.commands.table.lock().refused(&channel, generation, &cause, &mut wakes);
        let Some(refused) = refused else { return };
        if refused.first {
            let event = BusEvent::SubscriptionRefused { channel: channel.clone().into(), cause };
            self.0.monitor.report(event, &mut wakes);
        }
        drop(wakes);
        let Some(refusals) = refused.retry else { return };
        let connector = &self.0.commands.connector;
        let now = connector.runtime.now().wall;
        let sleep = connector.sleep(psrpc_bus_net::delay(FIRST_DELAY, refusals - 1, LONGEST_DELAY, now));
        // The bus may be dropped during the delay.
        let subscriptions: Weak<_> = Arc::downgrade(&self.0);
        connector.runtime.spawn(Box::pin(async move {
            sleep.await;
            if let Some(subscriptions) = subscriptions.upgrade() {
                subscriptions.retry(channel, generation);
            }
        }));
    }
}

impl ConnectionRole for SubscriptionSender {
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
        command.arg(&*self.0.commands.connector.options.prefixed(channel));
        Some(command)
    }

    fn complete(&self, change: SubscriptionChange, reply: Result<Value, Failure>) {
        match (change, reply) {
            (SubscriptionChange::Subscribe { channel, generation }, Ok(Value::Push { .. })) => {
                let mut wakes = WakeList::new();
                self.0.commands.table.lock().confirmed(&channel, generation, &mut wakes);
            }
            (SubscriptionChange::Subscribe { channel, generation }, Ok(reply)) => {
                let cause = self.0.commands.connector.unexpected_reply(&reply);
                self.refused(channel, generation, &cause);
            }
            (SubscriptionChange::Subscribe { channel, generation }, Err(Failure::Refused(cause))) => {
                self.refused(channel, generation, &cause);
            }
            // The next connection subscribes again.
            (SubscriptionChange::Subscribe { .. }, Err(Failure::Lost(_))) => {}
            // Goes through the queue of locks, behind the locks of frames received earlier.
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
        for (channel, generation) in table.resubscribe_all() {
            self.0.request(&table, channel, generation, &mut wakes);
        }
    }

    /// Interrupts the subscriptions. Frames are lost until they are live again.
    fn on_lost(&self, cause: &BusError) {
        let mut wakes = WakeList::new();
        self.0.commands.table.lock().lost(cause, &mut wakes);
    }

    /// Closes the queue of locks, which completes its operations first. Closing it earlier would
    /// lose frames that a leaving subscriber receives before the server has confirmed.
    fn on_ended(&self) {
        self.0.commands.locks.close(&mut WakeList::new());
    }
}
