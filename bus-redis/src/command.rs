//! Commands: what goes to the server beside subscriptions. Frames to publish, and locks to take.

use std::sync::Arc;

use psrpc::BusError;
use psrpc::bus::{Accepted, BusEvent, Full, Lock, Monitor, Offer, WakeList};
use psrpc::proto::Frame;
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

/// A large frame was encoded, for the channel that waits for it.
pub(crate) struct Encoded {
    pub(crate) channel: Box<str>,
    /// Which of the channel's frames that was.
    pub(crate) ticket: u64,
    /// `None` if the task that encodes was dropped.
    pub(crate) command: Option<Cmd>,
    pub(crate) size: usize,
}

/// Locks a frame, and hands it to a member of the queue if nobody else of the fleet has it.
pub(crate) struct LockFrame {
    channel: Box<str>,
    pub(crate) key: String,
    frame: Frame,
    size: usize,
}

/// Removes a subscriber, after the locks of the frames that came in before.
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

/// What the connection for commands shares with those who use it.
pub(crate) struct Commands {
    pub(crate) queue: Arc<ConnectionQueue<Command>>,
    pub(crate) table: Lock<Table>,
    pub(crate) connector: Arc<Connector>,
    monitor: Monitor,
}

impl Commands {
    pub(crate) fn new(connector: Arc<Connector>, monitor: Monitor) -> Self {
        let queue = Arc::new(ConnectionQueue::new(connector.options.queue_bytes));
        Self { queue, table: Lock::default(), connector, monitor }
    }

    /// Queues a frame to publish.
    pub(crate) fn publish(&self, offer: Offer<'_>, wakes: &mut WakeList) -> Result<Accepted, Full> {
        match self.queue.offer(Budget::Outbound, || Command::Publish(Publish::new(offer)), wakes) {
            Ok(()) => Ok(Accepted::Later),
            Err(Refusal::Full) => Err(Full),
            Err(Refusal::Down(cause)) => Ok(Accepted::Failed(cause)),
        }
    }

    /// Queues the lock of a frame that came in. Without room or a connection the frame is lost.
    pub(crate) fn lock(&self, channel: &str, bytes: &[u8], frame: Frame) {
        let mut wakes = WakeList::new();
        // A compressed frame takes more memory than its bytes.
        let size = bytes.len().max(frame.value_len()) + OVERHEAD;
        let lock = LockFrame { channel: channel.into(), key: lock::key(bytes), frame, size };
        let Err(refusal) = self.queue.offer(Budget::Inbound, || Command::Lock(lock), &mut wakes) else {
            return;
        };
        self.table.lock().lose_of_queue(channel, &mut wakes);
        if let Refusal::Full = refusal {
            self.monitor.report(BusEvent::Dropped { channel: channel.into(), count: 1 }, &mut wakes);
        }
    }

    /// Removes a subscriber once the frames that came in before have their locks.
    pub(crate) fn remove(&self, channel: Box<str>, id: SubscriberId) {
        let mut wakes = WakeList::new();
        let refused = self.queue.push(Command::Remove(Remove { channel, id }), &mut wakes);
        if let Err((Command::Remove(Remove { channel, id }), _)) = refused {
            self.table.lock().remove(&channel, id, &mut wakes);
        }
    }

    /// The bus has stopped: fails every subscription, and tells the monitor, once.
    pub(crate) fn stopped(&self, cause: &BusError) {
        let mut wakes = WakeList::new();
        if self.table.lock().stop(cause, &mut wakes) {
            self.monitor.report(BusEvent::Stopped { cause: cause.clone() }, &mut wakes);
        }
    }

    /// The server has answered, or the connection was lost.
    pub(crate) fn done(&self, command: Command, answer: Result<Value, Failure>) {
        match command {
            Command::Publish(publish) => self.published(publish, answer),
            Command::Lock(lock) => self.locked(lock, answer),
            Command::Remove(Remove { channel, id }) => {
                let mut wakes = WakeList::new();
                self.table.lock().remove(&channel, id, &mut wakes);
            }
            // The frame has failed since, with its connection.
            Command::Encoded(_) => {}
        }
    }

    fn published(&self, publish: Publish, answer: Result<Value, Failure>) {
        let Publish { channel, content, receipt, .. } = publish;
        let refused = |cause| BusError::new(format!("{cause}; publishing on {}", channel.legacy()));
        match (content, answer) {
            (Content::Failed(cause), _) => receipt.failed(cause),
            (_, Ok(Value::Int(receivers))) => receipt.published(u64::try_from(receivers).ok()),
            (_, Ok(answer)) => receipt.failed(refused(self.connector.unexpected(&answer))),
            (_, Err(Failure::Refused(cause))) => receipt.failed(refused(cause)),
            (_, Err(Failure::Lost(cause))) => receipt.failed(cause),
        }
    }

    fn locked(&self, lock: LockFrame, answer: Result<Value, Failure>) {
        let LockFrame { channel, frame, .. } = lock;
        let mut wakes = WakeList::new();
        let refused = match answer {
            Ok(Value::Okay) => return self.table.lock().deliver_to_queue(&channel, frame, &mut wakes),
            // Somebody else has it.
            Ok(Value::Nil) => return,
            Ok(answer) => Some(self.connector.unexpected(&answer)),
            Err(Failure::Refused(cause)) => Some(cause),
            Err(Failure::Lost(_)) => None,
        };
        // Somebody else may have it.
        self.table.lock().lose_of_queue(&channel, &mut wakes);
        if let Some(cause) = refused {
            let event = BusEvent::LockRefused { channel: channel.into(), cause, count: 1 };
            self.monitor.report(event, &mut wakes);
        }
    }
}
