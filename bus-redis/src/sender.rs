//! The command connection: encodes frames and keeps their order per channel.
//!
//! Small frames are encoded when they are sent. A large frame is encoded in its own task so that it
//! does not delay other channels. Later frames of the same channel are held back until it is ready.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use psrpc::BusError;
use psrpc::bus::WakeList;
use psrpc::proto::Channel;
use redis::{Cmd, Value};

use crate::command::{Command, Commands, Encoded};
use crate::connection::{ConnectionRole, Failure};
use crate::connector::Connector;
use crate::lock;
use crate::outage::Side;
use crate::publish::{Content, Publish, encode};
use crate::queue::{ConnectionQueue, Sizes};

pub(crate) struct CommandSender {
    commands: Arc<Commands>,
    /// The channels for which a frame is being encoded.
    encoding: BTreeMap<Box<str>, Encoding>,
    last_ticket: u64,
}

struct Encoding {
    ticket: u64,
    /// The frame that is being encoded. The task owns its content and size.
    first: Publish,
    held_back: VecDeque<Publish>,
}

impl CommandSender {
    pub(crate) fn new(commands: Arc<Commands>) -> Self {
        Self { commands, encoding: BTreeMap::new(), last_ticket: 0 }
    }

    fn enqueue(&mut self, publish: Publish, ready: &mut VecDeque<Command>) {
        if let Some(encoding) = self.encoding.get_mut(publish.channel.legacy()) {
            encoding.held_back.push_back(publish);
        } else if publish.is_large() {
            self.encode(publish, VecDeque::new());
        } else {
            ready.push_back(Command::Publish(publish));
        }
    }

    /// Starts to encode a large frame. `held_back` follows it.
    fn encode(&mut self, mut first: Publish, held_back: VecDeque<Publish>) {
        self.last_ticket += 1;
        let connector = &self.commands.connector;
        let task = EncodeTask {
            content: first.take(),
            channel: first.channel.clone(),
            connector: Arc::clone(connector),
            ticket: self.last_ticket,
            command: None,
            size: std::mem::take(&mut first.size),
            queue: Arc::clone(&self.commands.queue),
        };
        let encoding = Encoding { ticket: self.last_ticket, first, held_back };
        self.encoding.insert(task.channel.legacy().into(), encoding);
        connector.runtime.spawn(Box::pin(async move { task.run() }));
    }

    fn encoded(&mut self, encoded: Encoded, ready: &mut VecDeque<Command>) {
        let known = self.encoding.get(&encoded.channel);
        if known.is_none_or(|encoding| encoding.ticket != encoded.ticket) {
            // The frame has failed with its connection. Only its size is still to be released.
            return ready.push_back(Command::Encoded(encoded));
        }
        let Some(Encoding { mut first, mut held_back, .. }) = self.encoding.remove(&encoded.channel) else {
            return;
        };
        first.size = encoded.size;
        match encoded.command {
            Some(command) => first.content = Content::Encoded(command),
            None => {
                let cause =
                    BusError::new("the task that encodes the frame was dropped by its runtime, or panicked");
                first.content = Content::Failed(cause.clone());
                // Later frames of the channel must not overtake the failed one.
                held_back.iter_mut().for_each(|publish| publish.content = Content::Failed(cause.clone()));
            }
        }
        ready.push_back(Command::Publish(first));
        while let Some(publish) = held_back.pop_front() {
            if publish.is_large() {
                return self.encode(publish, held_back);
            }
            ready.push_back(Command::Publish(publish));
        }
    }
}

impl ConnectionRole for CommandSender {
    type Operation = Command;

    const SIDE: Side = Side::Commands;

    fn queue(&self) -> &Arc<ConnectionQueue<Command>> {
        &self.commands.queue
    }

    fn prepare(&mut self, command: Command, ready: &mut VecDeque<Command>) {
        match command {
            Command::Publish(publish) => self.enqueue(publish, ready),
            Command::Encoded(encoded) => self.encoded(encoded, ready),
            Command::Lock(_) | Command::Remove(_) => ready.push_back(command),
        }
    }

    fn holds_back(&self) -> bool {
        !self.encoding.is_empty()
    }

    fn take_held_back(&mut self) -> Vec<Command> {
        let encodings = std::mem::take(&mut self.encoding).into_values();
        let frames =
            encodings.flat_map(|Encoding { first, held_back, .. }| [first].into_iter().chain(held_back));
        frames.map(Command::Publish).collect()
    }

    fn command(&self, command: &mut Command) -> Option<Cmd> {
        match command {
            Command::Publish(publish) => match publish.take() {
                Content::Frame(frame) => {
                    Some(encode(&publish.channel, &frame, &self.commands.connector.options))
                }
                Content::Encoded(command) => Some(command),
                failed @ (Content::Failed(_) | Content::Taken) => {
                    publish.content = failed;
                    None
                }
            },
            Command::Lock(frame) => Some(lock::acquire(&frame.key)),
            Command::Encoded(_) | Command::Remove(_) => None,
        }
    }

    fn complete(&self, command: Command, reply: Result<Value, Failure>) {
        self.commands.complete(command, reply);
    }

    /// Reports the stop: the command connection ends after all other tasks of the bus.
    fn on_ended(&self) {
        self.commands.report_stopped(&BusError::new("the bus is closed"));
    }
}

/// The task that encodes one large frame.
struct EncodeTask {
    content: Content,
    channel: Channel,
    connector: Arc<Connector>,
    ticket: u64,
    command: Option<Cmd>,
    size: usize,
    queue: Arc<ConnectionQueue<Command>>,
}

impl EncodeTask {
    fn run(mut self) {
        if let Content::Frame(frame) = std::mem::replace(&mut self.content, Content::Taken) {
            self.command = Some(encode(&self.channel, &frame, &self.connector.options));
        }
    }
}

impl Drop for EncodeTask {
    /// Queues the result, even if encoding failed, because later frames wait for it.
    fn drop(&mut self) {
        let (channel, command) = (self.channel.legacy().into(), self.command.take());
        let encoded = Encoded { channel, ticket: self.ticket, command, size: self.size };
        let mut wakes = WakeList::new();
        if let Err((encoded, _)) = self.queue.push(Command::Encoded(encoded), &mut wakes) {
            let mut sizes = Sizes::default();
            sizes.add(&encoded);
            self.queue.release(sizes, &mut wakes);
        }
    }
}
