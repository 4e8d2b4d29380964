//! Entry points for fuzzing: a bus without a server, driven by the fuzz target.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use psrpc::bus::{Sink, WakeList};
use psrpc::{BusError, Runtime, SubscriptionKind};
use redis::{PushInfo, PushKind, Value};

use crate::connection::{ConnectionRole, Failure};
use crate::connector::Connector;
use crate::options::RedisOptions;
use crate::queue::{Next, Sizes};
use crate::sender::CommandSender;
use crate::subscriptions::SubscriptionSender;
use crate::{Shared, subscribers, url};

/// Identifies a subscriber.
#[derive(Clone, Copy, Debug)]
pub struct Subscriber(subscribers::SubscriberId);

/// A bus that acts as if it were connected.
pub struct Bus(Arc<Shared>);

/// The reply of the server to a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Success.
    Done,
    /// Another process holds the lock.
    Taken,
    /// The connection is lost.
    Lost,
}

impl Bus {
    /// Returns a bus with these options.
    ///
    /// # Panics
    ///
    /// Panics if no connector can be made for a loopback address.
    pub fn new(runtime: impl Runtime, options: RedisOptions) -> Self {
        let target = url::target("redis://127.0.0.1").expect("it is a URL");
        let connector = Connector::new(target, options, Arc::new(runtime)).expect("the options are allowed");
        let shared = Arc::new(Shared::new(connector));
        shared.commands.queue.connected();
        shared.subscriptions.queue.connected();
        Self(shared)
    }

    /// Subscribes and returns the id of the subscriber.
    ///
    /// # Panics
    ///
    /// Panics if the bus has stopped, which cannot happen here.
    pub fn subscribe(&self, channel: &str, kind: SubscriptionKind, sink: Sink) -> Subscriber {
        let mut wakes = WakeList::new();
        let id = self.0.subscriptions.subscribe(channel, kind, sink, &mut wakes);
        Subscriber(id.expect("the bus has not stopped"))
    }

    /// Unsubscribes.
    pub fn unsubscribe(&self, channel: &str, Subscriber(id): Subscriber) {
        self.0.subscriptions.unsubscribe(channel, id);
    }

    /// Handles a message pushed by the server: a channel and a frame.
    pub fn receive(&self, message: Vec<Vec<u8>>) {
        let data = message.into_iter().map(Value::BulkString).collect();
        self.0.subscriptions.on_pushed(PushInfo { kind: PushKind::Message, data });
    }

    /// Replies to all queued commands with the results of `answer`, including commands queued in
    /// response.
    pub fn answer(&self, mut answer: impl FnMut(&[u8]) -> Answer) {
        let mut commands = CommandSender::new(Arc::clone(&self.0.commands));
        let mut subscriptions = SubscriptionSender(Arc::clone(&self.0.subscriptions));
        while answer_to(&mut subscriptions, &mut answer) || answer_to(&mut commands, &mut answer) {}
    }
}

/// Replies to the queued operations of one connection. Returns `false` if there were none.
fn answer_to<P: ConnectionRole>(role: &mut P, answer: &mut impl FnMut(&[u8]) -> Answer) -> bool {
    let next = role.queue().poll_next(true, &Context::from_waker(Waker::noop()));
    let Poll::Ready(Next::Send(operations)) = next else { return false };
    let mut ready = VecDeque::new();
    operations.into_iter().for_each(|operation| role.prepare(operation, &mut ready));
    let mut sizes = Sizes::default();
    for mut operation in ready {
        sizes.add(&operation);
        let command = role.command(&mut operation).map(|command| command.get_packed_command());
        let reply = command.as_deref().map(|command| (command.starts_with(b"*2"), answer(command)));
        let answer = match reply {
            None | Some((_, Answer::Taken)) => Ok(Value::Nil),
            Some((_, Answer::Lost)) => Err(Failure::Lost(BusError::new("the connection was lost"))),
            // Subscribe and unsubscribe are the only commands with one argument.
            Some((true, Answer::Done)) => Ok(Value::Push { kind: PushKind::Subscribe, data: Vec::new() }),
            Some((false, Answer::Done)) => Ok(Value::Okay),
        };
        role.complete(operation, answer);
    }
    role.queue().release(sizes, &mut WakeList::new());
    true
}

impl std::fmt::Debug for Bus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bus").finish_non_exhaustive()
    }
}
