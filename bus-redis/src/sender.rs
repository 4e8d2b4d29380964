//! The sender of commands: encodes frames, and keeps their order per channel.
//!
//! Small frames are encoded when they are sent. A large one is encoded in a task of its own, so
//! that it does not hold up other channels; the later frames of its own channel are held back until
//! it can be sent.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use psrpc::BusError;
use psrpc::bus::WakeList;
use psrpc::proto::{Channel, Compression};
use redis::{Cmd, Value};

use crate::command::{Command, Commands, Encoded};
use crate::connection::{Failure, Purpose};
use crate::lock;
use crate::outage::Side;
use crate::publish::{Content, Publish, encode};
use crate::queue::{ConnectionQueue, Sizes};

pub(crate) struct CommandSender {
    commands: Arc<Commands>,
    /// The channels of which a frame is being encoded.
    encoding: BTreeMap<Box<str>, Encoding>,
    tickets: u64,
}

struct Encoding {
    ticket: u64,
    /// The frame that is being encoded, without its content and size, which the task has.
    first: Publish,
    held_back: VecDeque<Publish>,
}

impl CommandSender {
    pub(crate) fn new(commands: Arc<Commands>) -> Self {
        Self { commands, encoding: BTreeMap::new(), tickets: 0 }
    }

    fn place(&mut self, publish: Publish, ready: &mut VecDeque<Command>) {
        if let Some(encoding) = self.encoding.get_mut(publish.channel.legacy()) {
            encoding.held_back.push_back(publish);
        } else if publish.is_large() {
            self.encode(publish, VecDeque::new());
        } else {
            ready.push_back(Command::Publish(publish));
        }
    }

    /// Starts to encode a large frame, and holds back what comes after it.
    fn encode(&mut self, mut first: Publish, held_back: VecDeque<Publish>) {
        self.tickets += 1;
        let connector = &self.commands.connector;
        let task = Task {
            content: first.take(),
            to: first.channel.clone(),
            compression: connector.options.compression,
            ticket: self.tickets,
            command: None,
            size: std::mem::take(&mut first.size),
            queue: Arc::clone(&self.commands.queue),
        };
        let encoding = Encoding { ticket: self.tickets, first, held_back };
        self.encoding.insert(task.to.legacy().into(), encoding);
        connector.runtime.spawn(Box::pin(async move { task.run() }));
    }

    fn encoded(&mut self, encoded: Encoded, ready: &mut VecDeque<Command>) {
        let known = self.encoding.get(&encoded.channel);
        if known.is_none_or(|encoding| encoding.ticket != encoded.ticket) {
            // It was given up meanwhile, but for its size.
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
                // What was to leave after it would be sent in its place.
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

impl Purpose for CommandSender {
    type Operation = Command;

    const SIDE: Side = Side::Commands;

    fn queue(&self) -> &Arc<ConnectionQueue<Command>> {
        &self.commands.queue
    }

    fn prepare(&mut self, command: Command, ready: &mut VecDeque<Command>) {
        match command {
            Command::Publish(publish) => self.place(publish, ready),
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
                    Some(encode(&publish.channel, &frame, self.commands.connector.options.compression))
                }
                Content::Encoded(command) => Some(command),
                failed @ (Content::Failed(_) | Content::Taken) => {
                    publish.content = failed;
                    None
                }
            },
            Command::Lock(frame) => Some(lock::take(&frame.key)),
            Command::Encoded(_) | Command::Remove(_) => None,
        }
    }

    fn done(&self, command: Command, answer: Result<Value, Failure>) {
        self.commands.done(command, answer);
    }

    /// The last of the bus's tasks has ended.
    fn on_ended(&self) {
        self.commands.stopped(&BusError::new("the bus is closed"));
    }
}

/// The task that encodes one large frame.
struct Task {
    content: Content,
    to: Channel,
    compression: Option<Compression>,
    ticket: u64,
    command: Option<Cmd>,
    size: usize,
    queue: Arc<ConnectionQueue<Command>>,
}

impl Task {
    fn run(mut self) {
        if let Content::Frame(frame) = std::mem::replace(&mut self.content, Content::Taken) {
            self.command = Some(encode(&self.to, &frame, self.compression));
        }
    }
}

impl Drop for Task {
    /// Hands over the frame, also if there is none: what is held back waits for that.
    fn drop(&mut self) {
        let (channel, command) = (self.to.legacy().into(), self.command.take());
        let encoded = Encoded { channel, ticket: self.ticket, command, size: self.size };
        let mut wakes = WakeList::new();
        if let Err((encoded, _)) = self.queue.push(Command::Encoded(encoded), &mut wakes) {
            let mut sizes = Sizes::default();
            sizes.add(&encoded);
            self.queue.give_back(sizes, &mut wakes);
        }
    }
}
