//! Commands: what goes to the server beside subscriptions. Frames to publish, and locks to take.

use std::sync::Arc;

use bytes::Bytes;
use psrpc::BusError;
use psrpc::bus::Receipt;
use psrpc::proto::{Channel, Frame};
use redis::{Cmd, Value};

use crate::pipe::{Operation, Pipe, Room};
use crate::subscriptions::Subscriber;
use crate::{Shared, lock};

/// How much more room a frame takes than its bytes, about.
const OVERHEAD: usize = 256;

pub(crate) enum Command {
    /// Publishes a frame.
    Publish { channel: Channel, frame: Bytes, receipt: Receipt },
    /// Locks a frame, and hands it to a queue subscriber if nobody else of the fleet has it.
    Lock { channel: Box<str>, key: String, frame: Frame, size: usize },
    /// Lets subscribers go whose subscription has ended, after the locks of what came in before.
    LetGo { channel: Box<str>, subscribers: Vec<Subscriber> },
}

impl Operation for Command {
    fn pipe(shared: &Shared) -> &Pipe<Self> {
        &shared.commands
    }

    fn command(&self) -> Option<Cmd> {
        match self {
            Command::Publish { channel, frame, .. } => {
                let mut command = redis::cmd("PUBLISH");
                command.arg(channel.legacy()).arg(&frame[..]);
                Some(command)
            }
            Command::Lock { key, .. } => Some(lock::take(key)),
            Command::LetGo { .. } => None,
        }
    }

    fn size(&self) -> usize {
        match self {
            Command::Publish { frame, .. } => frame.len() + OVERHEAD,
            Command::Lock { size, .. } => size + OVERHEAD,
            Command::LetGo { .. } => 0,
        }
    }

    fn room(&self) -> Room {
        match self {
            Command::Publish { .. } | Command::LetGo { .. } => Room::Out,
            Command::Lock { .. } => Room::In,
        }
    }

    fn done(self, shared: &Arc<Shared>, answer: Result<Value, BusError>) {
        match (self, answer) {
            (Command::Publish { receipt, .. }, Ok(Value::Int(receivers))) => {
                receipt.published(u64::try_from(receivers).ok());
            }
            (Command::Publish { channel, receipt, .. }, Ok(answer)) => {
                let answer = shared.refused(answer);
                receipt.failed(BusError::new(format!("{answer}; publishing on {}", channel.legacy())));
            }
            (Command::Publish { receipt, .. }, Err(error)) => receipt.failed(error),
            (Command::Lock { channel, frame, .. }, Ok(Value::Okay)) => {
                shared.table().deliver_to_queue(&channel, frame);
            }
            // Somebody else has it.
            (Command::Lock { .. }, Ok(Value::Nil)) => {}
            // Somebody else may have it.
            (Command::Lock { channel, .. }, Ok(_) | Err(_)) => shared.table().lose_of_queue(&channel),
            (Command::LetGo { channel, subscribers }, _) => {
                let ended = shared.table().remove(&channel, &subscribers);
                // Without the table's lock.
                drop(ended);
            }
        }
    }
}
