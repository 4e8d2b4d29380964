//! What fuzzing gets hold of: a bus without a server, whose part it plays.

use std::sync::{Arc, Mutex};

use psrpc::bus::Sink;
use psrpc::{BusError, Runtime, SubscriptionKind};
use redis::{PushInfo, PushKind, Value};

use crate::command::Command;
use crate::connect::Connector;
use crate::pipe::{Operation, Pipe};
use crate::subscriptions::{self, Change};
use crate::{RedisOptions, Shared};

/// Names a subscriber.
#[derive(Clone, Copy, Debug)]
pub struct Subscriber(subscriptions::Subscriber);

/// A bus that believes in a server.
pub struct Bus(Arc<Shared>);

/// What a server says to a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is done.
    Done,
    /// Somebody else was quicker.
    Taken,
    /// The connection is lost.
    Lost,
}

impl Bus {
    /// A bus with these options.
    pub fn new(runtime: impl Runtime, options: RedisOptions) -> Self {
        let connector = Connector::from_url("redis://127.0.0.1", options.clone()).expect("it is a URL");
        let bus = Self(Arc::new(Shared {
            commands: Pipe::new(options.queue_bytes),
            changes: Pipe::new(usize::MAX),
            table: Mutex::default(),
            connector,
            options,
            runtime: Arc::new(runtime),
        }));
        bus.0.commands.up();
        bus.0.changes.up();
        bus
    }

    /// Subscribes, and gives what to unsubscribe by.
    pub fn subscribe(&self, channel: &str, kind: SubscriptionKind, sink: Sink) -> Subscriber {
        Subscriber(subscriptions::subscribe(&self.0, channel, kind, sink))
    }

    /// Unsubscribes.
    pub fn unsubscribe(&self, channel: &str, Subscriber(subscriber): Subscriber) {
        subscriptions::unsubscribe(&self.0, channel, subscriber);
    }

    /// Takes what a server pushes: a channel and a frame, if it is a message.
    pub fn receive(&self, message: Vec<Vec<u8>>) {
        let data = message.into_iter().map(Value::BulkString).collect();
        Change::on_pushed(&self.0, PushInfo { kind: PushKind::Message, data });
    }

    /// Answers all commands, each as `answer` has it, and what they bring about as well.
    pub fn answer(&self, mut answer: impl FnMut(&[u8]) -> Answer) {
        while self.answer_to::<Change>(&mut answer) || self.answer_to::<Command>(&mut answer) {}
    }

    fn answer_to<O: Operation>(&self, answer: &mut impl FnMut(&[u8]) -> Answer) -> bool {
        let operations = O::pipe(&self.0).take();
        let any = !operations.is_empty();
        for operation in operations {
            let command = operation.command().map(|command| command.get_packed_command());
            let said = command.as_deref().map(|command| (command.starts_with(b"*2"), answer(command)));
            operation.done(
                &self.0,
                match said {
                    None | Some((_, Answer::Taken)) => Ok(Value::Nil),
                    Some((_, Answer::Lost)) => Err(BusError::new("the connection was lost")),
                    // Of the commands, those about subscriptions have one argument.
                    Some((true, Answer::Done)) => {
                        Ok(Value::Push { kind: PushKind::Subscribe, data: Vec::new() })
                    }
                    Some((false, Answer::Done)) => Ok(Value::Okay),
                },
            );
        }
        any
    }
}

impl std::fmt::Debug for Bus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bus").finish_non_exhaustive()
    }
}
