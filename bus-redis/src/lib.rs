//! PSRPC over Redis, 6 or later: wire-compatible with the fleets of the Go implementation.
//!
//! ```no_run
//! # async fn example(runtime: impl psrpc::Runtime) -> Result<(), psrpc::Error> {
//! let bus = psrpc_bus_redis::RedisBus::connect("redis://127.0.0.1:6379", runtime).await?;
//! # Ok(())
//! # }
//! ```
//!
//! A bus has two connections: one for subscriptions, one for everything else. When one is lost it comes back by itself,
//! with growing delays, subscribes again, and reports a gap; meanwhile publishing fails at once.
//!
//! A queue subscription is a plain one with a lock: everybody gets each frame, and the one who sets its key takes it. So a
//! second, identical frame within 5 s is taken by nobody; requests are never identical, updates of a subscription may be.
//! Whoever is quickest takes most: Go's bus takes one lock after the other on a channel, so in a mixed fleet under load the
//! nodes of this bus do nearly all queue work. Calls of affinity methods are shared as their affinities say.
//!
//! It runs on any runtime, the one that it is given when it connects. When that shuts down the bus has stopped for good: what is
//! published or subscribed then fails at once. The Redis client that it uses connects by tokio where it is called on tokio, and by smol
//! elsewhere; no tokio runtime is started.

#![forbid(unsafe_code)]
#![deny(missing_docs, missing_debug_implementations)]

mod command;
mod connect;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod lock;
mod options;
mod pipe;
mod subscriptions;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use psrpc::bus::{Bus, BusId, Full, Receipt, Sink, Subscription};
use psrpc::proto::{Channel, Frame};
use psrpc::{Runtime, SubscriptionKind};
use redis::{Client, Value};
use tokio::sync::oneshot;

use self::command::Command;
use self::connect::Connector;
use self::pipe::{Pipe, Refusal};
use self::subscriptions::{Change, Table};

pub use self::connect::ConnectError;
pub use self::options::RedisOptions;

/// A bus over a Redis server. Cheap to clone; all clones are one bus.
///
/// Its connections are closed when the last clone and the last subscription are gone, and what was published by then has
/// left.
#[derive(Clone)]
pub struct RedisBus(Arc<Handle>);

/// Closes the bus when nobody has it any more.
struct Handle(Arc<Shared>);

/// What a bus, its subscriptions and its tasks have in common.
struct Shared {
    commands: Pipe<Command>,
    changes: Pipe<Change>,
    table: Mutex<Table>,
    connector: Connector,
    options: RedisOptions,
    runtime: Arc<dyn Runtime>,
}

impl RedisBus {
    /// Connects to the server that a URL names: `redis://[[user]:password@]host[:port][/database]`.
    ///
    /// # Errors
    ///
    /// When the URL is not valid, or the server cannot be reached, refuses us or is no Redis.
    pub async fn connect(url: &str, runtime: impl Runtime) -> Result<Self, ConnectError> {
        Self::connect_with(url, runtime, RedisOptions::new()).await
    }

    /// As [`connect`](Self::connect), with options.
    ///
    /// # Errors
    ///
    /// As those of [`connect`](Self::connect).
    pub async fn connect_with(
        url: &str,
        runtime: impl Runtime,
        options: RedisOptions,
    ) -> Result<Self, ConnectError> {
        Self::start(Connector::from_url(url, options.clone())?, runtime, options).await
    }

    /// Connects to the server of an existing client, with the client's own settings.
    ///
    /// The bus has connections of its own, on which the protocol is RESP 3 and `TCP_NODELAY` is set.
    ///
    /// # Errors
    ///
    /// As those of [`connect`](Self::connect).
    pub async fn from_client(
        client: &Client,
        runtime: impl Runtime,
        options: RedisOptions,
    ) -> Result<Self, ConnectError> {
        Self::start(Connector::from_client(client, options.clone())?, runtime, options).await
    }

    async fn start(
        connector: Connector,
        runtime: impl Runtime,
        options: RedisOptions,
    ) -> Result<Self, ConnectError> {
        let shared = Arc::new(Shared {
            commands: Pipe::new(options.queue_bytes),
            changes: Pipe::new(usize::MAX),
            table: Mutex::default(),
            connector,
            options,
            runtime: Arc::new(runtime),
        });
        let bus = Self(Arc::new(Handle(Arc::clone(&shared))));
        let (commands, commands_connected) = oneshot::channel();
        let (changes, changes_connected) = oneshot::channel();
        shared.runtime.spawn(Box::pin(pipe::run::<Command>(Arc::clone(&shared), commands)));
        shared.runtime.spawn(Box::pin(pipe::run::<Change>(Arc::clone(&shared), changes)));
        for connected in [commands_connected, changes_connected] {
            // A task that is gone was dropped by its runtime.
            let stopped = || ConnectError::Server {
                server: shared.connector.server.clone(),
                cause: "the runtime of the bus has shut down".into(),
            };
            connected.await.unwrap_or_else(|_| Err(stopped()))?;
        }
        Ok(bus)
    }
}

impl Shared {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the server said instead of what it was asked for.
    fn refused(&self, answer: Value) -> ConnectError {
        match answer.extract_error() {
            Err(error) => self.connector.failed(&error),
            Ok(answer) => {
                let cause = format!("an answer that was not expected: {answer:?}");
                ConnectError::Server { server: self.connector.server.clone(), cause }
            }
        }
    }
}

impl Bus for RedisBus {
    fn id(&self) -> Option<BusId> {
        Some(BusId::of(&self.0))
    }

    fn publish(&self, channel: &Channel, frame: Frame, receipt: Receipt) -> Result<(), Box<Full>> {
        let encoded = frame.encode_with(channel.local(), self.0.0.options.compression);
        let command = Command::Publish { channel: channel.clone(), frame: encoded, receipt };
        match self.0.0.commands.offer(command) {
            Err((Command::Publish { receipt, .. }, Refusal::Full)) => Err(Box::new(Full { frame, receipt })),
            Err((Command::Publish { receipt, .. }, Refusal::Down(error))) => {
                receipt.failed(error);
                Ok(())
            }
            Err(_) | Ok(()) => Ok(()),
        }
    }

    fn poll_room(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.0.0.commands.poll_room(cx)
    }

    fn subscribe(&self, channel: &Channel, kind: SubscriptionKind, sink: Sink) -> Subscription {
        let name = subscriptions::subscribe(&self.0.0, channel.legacy(), kind, sink);
        let (handle, channel) = (Arc::clone(&self.0), channel.clone());
        Subscription::new(move || subscriptions::unsubscribe(&handle.0, channel.legacy(), name))
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // The commands follow, once the subscriptions have ended.
        self.0.changes.close();
    }
}

impl std::fmt::Debug for RedisBus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisBus").field("server", &self.0.0.connector.server).finish()
    }
}
