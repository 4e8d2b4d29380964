//! Commands other than subscriptions: publishing frames and acquiring locks.

use std::sync::Arc;

use psrpc::bus::{Accepted, BusEvent, Full, Lock, Monitor, Offer, WakeList};
use psrpc::proto::Frame;
use psrpc::{BusError, Time};
use redis::{Cmd, Value};

use crate::connection::Failure;
use crate::connector::Connector;
use crate::lock;
use crate::publish::{Content, OVERHEAD, Publish};
use crate::queue::{Budget, ConnectionQueue, Operation, Refusal};
use crate::subscribers::{SubscriberId, Table};

pub(crate) enum Command {
    Publish(Publish),
    Encoded(Encoded),
    Lock(LockFrame),
    Remove(Remove),
}

/// The result of encoding a large frame.
pub(crate) struct Encoded {
    pub(crate) channel: Box<str>,
    /// The ticket of the frame, unique in its channel.
    pub(crate) ticket: u64,
    /// `None` if the task was dropped or panicked.
    pub(crate) command: Option<Cmd>,
    pub(crate) size: usize,
}

/// Acquires the lock of a frame, and delivers the frame to a queue member on success.
pub(crate) struct LockFrame {
    channel: Box<str>,
    pub(crate) key: String,
    pub(crate) received: Time,
    frame: Frame,
    size: usize,
}

/// Removes a subscriber, after the locks of frames received earlier.
pub(crate) struct Remove {
    channel: Box<str>,
    id: SubscriberId,
}

impl Operation for Command {
    fn size(&self) -> usize {
        match self {
            Command::Publish(publish) => publish.size,
            Command::Encoded(encoded) => encoded.size,
            Command::Lock(lock) => lock.size,
            Command::Remove(_) => 0,
        }
    }

    fn budget(&self) -> Budget {
        match self {
            Command::Lock(_) => Budget::Inbound,
            Command::Publish(_) | Command::Encoded(_) | Command::Remove(_) => Budget::Outbound,
        }
    }
}

/// State shared between the command connection and the bus.
pub(crate) struct Commands {
    pub(crate) queue: Arc<ConnectionQueue<Command>>,
    /// The queue of locks and removals. Outside of a cluster, it is `queue`.
    pub(crate) locks: Arc<ConnectionQueue<Command>>,
    pub(crate) table: Lock<Table>,
    pub(crate) connector: Arc<Connector>,
    monitor: Monitor,
}

impl Commands {
    pub(crate) fn new(connector: Arc<Connector>, monitor: Monitor) -> Self {
        let queue = Arc::new(ConnectionQueue::new(connector.options.queue_bytes));
        let locks = if connector.target.is_cluster() {
            let locks = ConnectionQueue::new(connector.options.queue_bytes);
            // Its task connects to the nodes that it needs.
            locks.connected();
            Arc::new(locks)
        } else {
            Arc::clone(&queue)
        };
        Self { queue, locks, table: Lock::default(), connector, monitor }
    }

    /// Queues a frame to publish.
    pub(crate) fn publish(&self, offer: Offer<'_>, wakes: &mut WakeList) -> Result<Accepted, Full> {
        match self.queue.offer(Budget::Outbound, || Command::Publish(Publish::new(offer)), wakes) {
            Ok(()) => Ok(Accepted::Later),
            Err(Refusal::Full) => Err(Full),
            Err(Refusal::Down(cause)) => Ok(Accepted::Failed(cause)),
        }
    }

    /// Queues a lock for a received frame. The frame is lost if the budget is used up or the
    /// connection is down.
    pub(crate) fn lock(&self, channel: &str, bytes: &[u8], frame: Frame) {
        let mut wakes = WakeList::new();
        // A compressed frame takes more memory than its bytes.
        let size = bytes.len().max(frame.value_len()) + OVERHEAD;
        let received = self.connector.runtime.now().time;
        let key = lock::key(&self.connector.options.channel_prefix, bytes);
        let lock = LockFrame { channel: channel.into(), key, received, frame, size };
        let Err(refusal) = self.locks.offer(Budget::Inbound, || Command::Lock(lock), &mut wakes) else {
            return;
        };
        self.table.lock().report_queue_gap(channel, &mut wakes);
        if let Refusal::Full = refusal {
            self.monitor.report(BusEvent::Dropped { channel: channel.into(), count: 1 }, &mut wakes);
        }
    }

    /// Removes a subscriber after the locks of frames received earlier.
    pub(crate) fn remove(&self, channel: Box<str>, id: SubscriberId) {
        let mut wakes = WakeList::new();
        let refused = self.locks.push(Command::Remove(Remove { channel, id }), &mut wakes);
        if let Err((Command::Remove(Remove { channel, id }), _)) = refused {
            self.table.lock().remove(&channel, id, &mut wakes);
        }
    }

    /// Fails every subscription and reports the stop to the monitor, once.
    pub(crate) fn report_stopped(&self, cause: &BusError) {
        let mut wakes = WakeList::new();
        if self.table.lock().stop(cause, &mut wakes) {
            self.monitor.report(BusEvent::Stopped { cause: cause.clone() }, &mut wakes);
        }
    }

    /// Completes a command with the reply of the server or the reason why it failed.
    pub(crate) fn complete(&self, command: Command, reply: Result<Value, Failure>) {
        match command {
            Command::Publish(publish) => self.complete_publish(publish, reply),
            Command::Lock(lock) => self.complete_lock(lock, reply),
            Command::Remove(Remove { channel, id }) => {
                let mut wakes = WakeList::new();
                self.table.lock().remove(&channel, id, &mut wakes);
            }
            // The frame has already failed with its connection.
            Command::Encoded(_) => {}
        }
    }

    fn complete_publish(&self, publish: Publish, reply: Result<Value, Failure>) {
        let Publish { channel, content, receipt, .. } = publish;
        let refused = |cause| BusError::new(format!("cannot publish on {}: {cause}", channel.legacy()));
        match (content, reply) {
            (Content::Failed(cause), _) => receipt.failed(cause),
            // A node of a cluster counts the receivers at that node alone.
            (_, Ok(Value::Int(_))) if self.connector.target.is_cluster() => receipt.published(None),
            (_, Ok(Value::Int(receivers))) => receipt.published(u64::try_from(receivers).ok()),
            (_, Ok(reply)) => receipt.failed(refused(self.connector.unexpected_reply(&reply))),
            (_, Err(Failure::Refused(cause))) => receipt.failed(refused(cause)),
            (_, Err(Failure::Lost(cause))) => receipt.failed(cause),
        }
    }

    fn complete_lock(&self, lock: LockFrame, reply: Result<Value, Failure>) {
        let LockFrame { channel, frame, .. } = lock;
        let mut wakes = WakeList::new();
        let refused = match reply {
            Ok(Value::Okay) => return self.table.lock().deliver_to_queue(&channel, frame, &mut wakes),
            // Another process took the frame.
            Ok(Value::Nil) => return,
            Ok(reply) => Some(self.connector.unexpected_reply(&reply)),
            Err(Failure::Refused(cause)) => Some(cause),
            Err(Failure::Lost(_)) => None,
        };
        // Another process may have taken the frame.
        self.table.lock().report_queue_gap(&channel, &mut wakes);
        if let Some(cause) = refused {
            let event = BusEvent::LockRefused { channel: channel.into(), cause, count: 1 };
            self.monitor.report(event, &mut wakes);
        }
    }
}
