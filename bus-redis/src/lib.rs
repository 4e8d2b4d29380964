//! PSRPC over Redis 6 or later, wire-compatible with the Go implementation.
//!
//! ```no_run
//! # use psrpc_tokio as psrpc;
//! use std::time::Duration;
//!
//! use psrpc_bus_redis::{RedisBus, RedisOptions};
//!
//! # async fn example() -> Result<(), psrpc::Error> {
//! let bus = RedisBus::connect("redis://127.0.0.1:6379", psrpc::default_runtime()?).await?;
//!
//! // With options: start even if the server is not up yet.
//! let options = RedisOptions::new().wait_for_server(true).reconnect_delay(Duration::from_secs(5));
//! let url = "redis://user:password@redis.internal:6379/0";
//! let bus = RedisBus::connect_with(url, psrpc::default_runtime()?, options).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # URLs
//!
//! | URL | server |
//! |---|---|
//! | `redis://[[user]:password@]host[:port][/database]` | one server; the port is 6379 unless the URL names another |
//! | `redis+unix:///path[?db=N&user=USER&pass=PASSWORD]`, `unix:///path` | one server at a Unix socket |
//! | `redis+sentinel://[[user]:password@]host[:port],.../NAME[/database]` | the master that the sentinels call `NAME`; their port is 26379 unless the URL names another |
//! | `redis+cluster://[[user]:password@]host[:port],...` | a Redis Cluster, of which the URL names some nodes |
//!
//! `rediss` in place of `redis` asks for TLS (feature `tls`). `valkey` and `valkeys` mean the same
//! as `redis` and `rediss`. The database only matters for locks: channels are the same in all
//! databases. Special characters in a user or a password are percent-encoded. If credentials change
//! while the bus runs, set [`RedisOptions::credentials`].
//!
//! # Queues
//!
//! A queue subscription consists of a plain subscription and a lock. Every member of the fleet
//! receives each frame, and the member that acquires the frame's lock takes it. The key of the lock
//! is the digest of the frame, and the lock lives for 5 s: if an identical frame follows within
//! that time, no member takes it. Requests are never identical. Updates may be.
//!
//! The quickest member takes most frames. Go's bus takes one lock after the other on a channel, so
//! in a mixed fleet under load, nodes with this bus do nearly all queue work. Affinity calls are
//! not affected.
//!
//! # Outages
//!
//! A bus has two connections: one for subscriptions, one for everything else. Its
//! [status](psrpc::bus::Status) is `Connected` while both are up. If either is lost or fails a
//! [check](#checks), the bus reconnects with growing delays ([`RedisOptions::reconnect_delay`]).
//! Until then, publishing fails at once, and subscriptions are interrupted. You need not create
//! clients and servers again. They log an outage like this, of a server that was restarted:
//!
//! ```text
//! WARN psrpc::bus: bus connection lost service="Hats" id="CLI_x2LqnB4Bu3wI"
//!     cause=redis at 127.0.0.1:6379: the server closed the connection
//! WARN psrpc::bus: subscriptions are interrupted service="Hats" id="CLI_x2LqnB4Bu3wI"
//!     cause=redis at 127.0.0.1:6379: the server closed the connection
//! INFO psrpc::bus: subscriptions are live again service="Hats" id="CLI_x2LqnB4Bu3wI" count=2
//! INFO psrpc::bus: bus connected again service="Hats" id="CLI_x2LqnB4Bu3wI" after=1.175074765s
//! ```
//!
//! A program gets the same information from the bus and its [`Monitor`]:
//!
//! ```no_run
//! # async fn example(bus: psrpc_bus_redis::RedisBus) -> Result<(), psrpc::BusError> {
//! use psrpc::bus::{Bus, Status};
//!
//! if let (Status::Reconnecting { cause, .. }, Some(monitor)) = (bus.status(), bus.monitor()) {
//!     println!("no bus: {cause}");
//!     monitor.connected().await?;
//! }
//! # Ok(())
//! # }
//! ```
//!
//! [`Monitor::watch`] returns the [events](BusEvent). Each has the message of the server or the
//! operating system, without secrets:
//!
//! | event | when |
//! |---|---|
//! | [`ConnectionLost`](BusEvent::ConnectionLost) | either connection was lost: once per outage, and once more if the server then refuses the credentials or a certificate, or if they cannot be provided |
//! | [`Reconnected`](BusEvent::Reconnected) | both connections work again: once per outage |
//! | [`Stopped`](BusEvent::Stopped) | the bus was closed, or its runtime has shut down |
//! | [`SubscriptionRefused`](BusEvent::SubscriptionRefused) | the server refused a subscription, for the first time since it was last live |
//! | [`LockRefused`](BusEvent::LockRefused) | the server refused the lock of a queue's frame: `READONLY`, `NOPERM`, `OOM`, `NOREPLICAS`, ... |
//! | [`Dropped`](BusEvent::Dropped) | the bus dropped a queue's frame, because too many others were waiting for their locks |
//!
//! If your program may start before its server, set [`RedisOptions::wait_for_server`].
//!
//! # Refused subscriptions
//!
//! If the server refuses a subscription that was never live, the subscription fails. If the
//! subscription was live, the bus keeps it: after a lost connection, or after an administrator has
//! revoked the permission for a channel, the subscriber is told once that it is
//! [interrupted](psrpc::bus::Delivery::Interrupted). The bus then asks the server again, at least
//! once a second, until the subscription is [live](psrpc::bus::Delivery::Live) or dropped.
//!
//! # Checks
//!
//! At each [`RedisOptions::ping_interval`], also when it is busy, the bus sends one or two commands
//! on each connection. They detect a server that answers but no longer serves:
//!
//! * `HELLO 3` reports the server's role. A master that was demoted to a replica accepts messages
//!   that reach only its own clients.
//! * A message that the bus publishes to itself, on the channel `psrpc-probe:` and a random id,
//!   must arrive within [`RedisOptions::response_timeout`]. It does not if an address leads to two
//!   servers that do not exchange messages.
//! * In a cluster, `CLUSTER INFO` reports whether the node is cut off from the others.
//!
//! If a check fails, the bus replaces the connection and reports the cause as an event. If the
//! message does not arrive, it replaces both connections. It also checks the role when it connects:
//! a replica is refused, as is a server of the wrong kind, such as a sentinel or a node of a
//! cluster at a `redis://` URL. The bus skips checks that the user's rights do not allow.
//!
//! # Rights
//!
//! A user needs these rights for a service `Hats`:
//!
//! ```text
//! ACL SETUSER hatter on >password resetchannels &Hats|* &psrpc-probe:* ~*
//!     -@all +hello +ping +publish +subscribe +unsubscribe +set
//! ```
//!
//! Add `+cluster|info +cluster|slots +asking` for a cluster. `~*` and `+set` are for the locks of
//! queues, whose keys are digests. Without the right to `psrpc-probe:*` the bus works, but does not
//! send messages to itself. With [`RedisOptions::channel_prefix`], each pattern begins with the
//! prefix: `&ours:Hats|*`, `&ours:psrpc-probe:*` and `~ours:*`. `docs/operations.md` in the
//! repository has recipes for servers, clients, Sentinel and Cluster, a list of all errors, and
//! advice on choosing a bus.
//!
//! # Sentinel
//!
//! Each time the bus connects, it asks the sentinels in turn for the master. It follows a failover
//! when the old master is lost, or when the role of the old master changes. A bus needs one
//! sentinel that it can reach. Sentinels need Redis 6.2 or later.
//!
//! # Cluster
//!
//! Each connection leads to one node. The node forwards published frames to every other node, so
//! each frame costs work at every node: a cluster adds reliability, but no capacity for messages.
//! The number of receivers of a publish is unknown, because a node counts its own subscribers only.
//! Nodes forward frames without a confirmation. A new subscription may receive frames that were
//! published at another node just before it was live. Frames are lost while the link between two
//! nodes is broken, and no connection of the bus notices that. Across a slow link, a frame that
//! arrives more than 5 s late is taken from a queue a second time.
//!
//! The lock of a queue's frame is taken at the master of the key's slot. The bus follows slots that
//! move, and finds further nodes when one is lost. While a slot has no master, its locks fail, and
//! the bus reports [`LockRefused`](BusEvent::LockRefused). Sharded channels (`SPUBLISH`) are not
//! supported: Go peers do not use them.
//!
//! # Features
//!
//! The bus runs on the runtime that you pass to `connect`. Cargo features choose how the Redis
//! client connects: `tokio` (the default), or `smol` for `psrpc-smol` and every other runtime that
//! is not tokio. The bus starts no tokio runtime. Connecting on a runtime whose feature is off
//! fails with an error that [names the feature](ConnectError::Runtime).
//!
//! `tls` (off by default) adds TLS by rustls with ring, on both runtimes. It neither needs nor
//! installs a process-wide crypto provider. [`RedisOptions::tls`] sets the certificates. A
//! [client](RedisBus::from_client) with TLS settings of its own uses those instead, and needs the
//! TLS features of the crate `redis`.
//!
//! If the runtime shuts down, the bus stops for good: publishing and subscribing fail at once.

#![forbid(unsafe_code)]
#![deny(missing_docs, missing_debug_implementations)]

#[cfg(not(any(feature = "tokio", feature = "smol")))]
compile_error!("psrpc-bus-redis needs one of its features `tokio` and `smol`");

mod cause;
mod check;
mod cluster;
mod command;
mod connection;
mod connector;
mod credentials;
mod dial;
mod error;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod greeting;
mod lock;
mod options;
mod outage;
mod probe;
mod publish;
mod queue;
mod sender;
mod sentinel;
#[cfg(feature = "tls")]
mod stream;
mod subscribers;
mod subscriptions;
mod target;
#[cfg(feature = "tls")]
mod tls;
mod url;

use std::sync::Arc;
use std::task::{Context, Poll};

#[cfg(doc)]
use psrpc::bus::BusEvent;
use psrpc::bus::{Accepted, Bus, BusId, Full, Monitor, Offer, Sink, Subscription, WakeList};
use psrpc::proto::Channel;
use psrpc::{BusError, Runtime, SubscriptionKind};
use redis::Client;
use tokio::sync::oneshot;

use self::cluster::ClusterLocks;
use self::command::Commands;
use self::connection::Connection;
use self::connector::Connector;
use self::outage::Outages;
use self::probe::Probe;
use self::sender::CommandSender;
use self::subscriptions::{SubscriptionSender, Subscriptions};
use self::target::Target;

pub use self::credentials::Credentials;
pub use self::error::ConnectError;
pub use self::options::RedisOptions;
#[cfg(feature = "tls")]
pub use psrpc_bus_net::TlsOptions;

/// A bus over Redis: a server, a master with sentinels, or a cluster. Cheap to clone; all clones
/// share the same connections.
///
/// Dropping the last clone and the last subscription closes the connections, after the bus has sent
/// every frame that was published before.
#[derive(Clone)]
pub struct RedisBus(Arc<Handle>);

/// Closes the bus when the last clone and subscription are dropped.
struct Handle(Arc<Shared>);

/// State shared by the bus, its subscriptions and its tasks.
struct Shared {
    connector: Arc<Connector>,
    outages: Arc<Outages>,
    probe: Arc<Probe>,
    commands: Arc<Commands>,
    subscriptions: Arc<Subscriptions>,
}

impl RedisBus {
    /// Connects to the server at a [URL](crate#urls) such as `redis://127.0.0.1:6379`.
    ///
    /// # Errors
    ///
    /// Returns an error if the URL is invalid or the [feature](crate#features) for the runtime or
    /// for TLS is disabled. Also returns an error if the server is unreachable, refuses the
    /// connection, is not Redis, or is not of the kind that the URL names.
    pub async fn connect(url: &str, runtime: impl Runtime) -> Result<Self, ConnectError> {
        Self::connect_with(url, runtime, RedisOptions::new()).await
    }

    /// Connects with options.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`connect`](Self::connect).
    pub async fn connect_with(
        url: &str,
        runtime: impl Runtime,
        options: RedisOptions,
    ) -> Result<Self, ConnectError> {
        Self::connect_to(url::target(url)?, runtime, options).await
    }

    /// Connects to the server of an existing client, with the settings of that client.
    ///
    /// The bus opens its own connections and always uses RESP3 and `TCP_NODELAY`.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`connect`](Self::connect).
    pub async fn from_client(
        client: &Client,
        runtime: impl Runtime,
        options: RedisOptions,
    ) -> Result<Self, ConnectError> {
        Self::connect_to(Target::server(client.get_connection_info(), false), runtime, options).await
    }

    async fn connect_to(
        target: Target,
        runtime: impl Runtime,
        options: RedisOptions,
    ) -> Result<Self, ConnectError> {
        connector::check_features(runtime.is_tokio())?;
        let shared = Arc::new(Shared::new(Connector::new(target, options, Arc::new(runtime))?));
        let bus = Self(Arc::new(Handle(Arc::clone(&shared))));
        let (commands, commands_connected) = oneshot::channel();
        let (subscriptions, subscriptions_connected) = oneshot::channel();
        let runtime = &shared.connector.runtime;
        let sender = CommandSender::new(Arc::clone(&shared.commands));
        runtime.spawn(Box::pin(shared.connection(sender).run(commands)));
        let sender = SubscriptionSender(Arc::clone(&shared.subscriptions));
        runtime.spawn(Box::pin(shared.connection(sender).run(subscriptions)));
        if shared.connector.target.is_cluster() {
            let stopped = Arc::clone(&shared);
            let locks = ClusterLocks::new(Arc::clone(&shared.commands), move |cause| stopped.stop(cause));
            runtime.spawn(Box::pin(locks.run()));
        }
        // A sender is dropped without a result if the runtime dropped the task, or if the task had
        // not begun to connect when the other one failed.
        let stopped = |_| Err(shared.connector.connect_error("the runtime of the bus has shut down"));
        let commands = commands_connected.await;
        if let Ok(Err(error)) = commands {
            return Err(error);
        }
        subscriptions_connected.await.unwrap_or_else(stopped)?;
        commands.unwrap_or_else(stopped)?;
        Ok(bus)
    }
}

impl Shared {
    fn new(connector: Connector) -> Self {
        let (connector, outages) = (Arc::new(connector), Arc::new(Outages::default()));
        let commands = Arc::new(Commands::new(Arc::clone(&connector), outages.monitor.clone()));
        let probe = Arc::new(Probe::new(&connector));
        let (monitor, own) = (outages.monitor.clone(), Arc::clone(&probe));
        let subscriptions = Arc::new(Subscriptions::new(Arc::clone(&commands), monitor, own));
        Self { connector, outages, probe, commands, subscriptions }
    }

    fn connection<P: connection::ConnectionRole>(self: &Arc<Self>, role: P) -> Connection<P> {
        let shared = Arc::clone(self);
        let (connector, outages) = (Arc::clone(&self.connector), Arc::clone(&self.outages));
        Connection::new(role, connector, outages, Arc::clone(&self.probe), move |cause| shared.stop(cause))
    }

    /// Fails all later publishing and every subscription, because a task of the bus ended early.
    fn stop(&self, cause: &BusError) {
        let mut wakes = WakeList::new();
        self.commands.report_stopped(cause);
        self.commands.queue.stop(cause, &mut wakes);
        self.commands.locks.stop(cause, &mut wakes);
        self.subscriptions.queue.stop(cause, &mut wakes);
    }
}

impl Bus for RedisBus {
    fn publish(&self, offer: Offer<'_>, wakes: &mut WakeList) -> Result<Accepted, Full> {
        self.0.0.commands.publish(offer, wakes)
    }

    fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.0.0.commands.queue.poll_ready(cx)
    }

    fn subscribe(
        &self,
        channel: &Channel,
        kind: SubscriptionKind,
        sink: Sink,
        wakes: &mut WakeList,
    ) -> Subscription {
        let id = self.0.0.subscriptions.subscribe(channel.legacy(), kind, sink, wakes);
        let (handle, channel) = (Arc::clone(&self.0), channel.clone());
        Subscription::new(move || {
            if let Some(id) = id {
                handle.0.subscriptions.unsubscribe(channel.legacy(), id);
            }
        })
    }

    fn monitor(&self) -> Option<&Monitor> {
        Some(&self.0.0.outages.monitor)
    }

    fn id(&self) -> Option<BusId> {
        Some(BusId::of(&self.0))
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // The command connection closes after the subscription connection has ended.
        self.0.subscriptions.queue.close(&mut WakeList::new());
    }
}

impl std::fmt::Debug for RedisBus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisBus").field("server", &self.0.0.connector.server()).finish()
    }
}
