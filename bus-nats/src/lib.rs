//! PSRPC over NATS: wire-compatible with the fleets of the Go implementation.
//!
//! ```no_run
//! # async fn example(runtime: impl psrpc::Runtime) -> Result<(), psrpc::Error> {
//! let bus = psrpc_bus_nats::NatsBus::connect("nats://user:password@localhost:4222", runtime).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Where it runs
//!
//! The NATS client library needs tokio. On a tokio runtime the bus runs on that runtime. On any
//! other the bus starts one thread, `psrpc-nats`, with a small tokio runtime for the connection.
//! The thread ends with the last clone of the bus and the last of its subscriptions, once what was
//! published is written. An idle bus wakes nothing but the library's pings
//! ([`NatsOptions::ping_interval`]).
//!
//! When the runtime shuts down the bus has stopped for good: publishing and subscribing fail at
//! once.
//!
//! # Publishing
//!
//! The publishing thread encodes a frame and hands it to the client library as soon as it holds no
//! lock. If frames follow each other closely, a task on the runtime gathers them for one turn of
//! the executor first, so that one write carries many. If the library has no room, frames wait in a
//! queue that is bounded in bytes ([`NatsOptions::queue_bytes`]). A frame of 64 KiB or more is
//! encoded in a task of its own; the later frames of its channel wait for it, and those of other
//! channels do not.
//!
//! NATS confirms no publish. A frame on a subject that the server is known to allow is reported as
//! published once the bus has accepted it: a later loss of the connection may lose it. The first
//! frames on a subject are reported as published when the server has had time to refuse them. A
//! publish fails when
//!
//! - there is no connection, or it is lost before the frame is confirmed;
//! - the server refuses the frame, with the server's words;
//! - the frame is larger than the server's `max_payload`;
//! - the channel's name cannot be a NATS subject. Parts of subjects are ids of peers, so empty
//!   parts, whitespace, control characters, `*` and `>` are refused.
//!
//! # Subscribing
//!
//! All channels with one subject share one NATS subscription, in the queue group `bus` for queue
//! subscriptions. The bus finds a frame's channel by the local name in its envelope. Queue
//! subscribers to one channel on one bus take turns. A frame that does not decode goes to one
//! subscriber of its subject. A frame of a queue for a channel that nobody here subscribed to goes
//! to one that can answer for it ([`Sink::misrouted`]), and is reported as
//! [`Misrouted`](BusEvent::Misrouted).
//!
//! A subscription is live when the server has answered a message that the bus sent after it: the
//! next frame that anybody publishes on that server reaches it. Other servers of a cluster learn of
//! the subscription a moment later. An unsubscribe ends in the same way: whatever the server had
//! handed out by then is delivered first.
//!
//! A subscription that the server refuses before it was ever live fails with the server's words.
//! The client library reports refusals in a task of its own. If that task is late, a subscription
//! is live for a moment and then interrupted.
//!
//! # Updates and requests
//!
//! The servers of a service's queue-routed methods and the clients with a queue subscription to its
//! updates share one subject and one queue group, if both have no topic or the same. NATS hands
//! each message to one member of the group, so about half of the updates and of the requests go to
//! a member that cannot use them. Fleets of Go lose them too. Do one of these:
//!
//! - put the updates into a service of their own;
//! - give them a topic of their own;
//! - set [`NatsOptions::separate_updates`] on every bus, if no Go client subscribes to them.
//!
//! # Outages
//!
//! When the connection is lost, the bus connects again by itself, with growing delays
//! ([`NatsOptions::reconnect_delay`]), to any server that it was given or that the cluster announced.
//! Until then publishing fails at once, and subscriptions are interrupted. Clients and servers need
//! not be made anew. They log an outage like this one, of a server that was restarted:
//!
//! ```text
//! WARN psrpc::bus: bus connection lost service="Hats" id="CLI_MdqZdbJxoxAB"
//!     cause=not connected to nats://127.0.0.1:4222: the connection was lost
//! WARN psrpc::bus: subscriptions are interrupted service="Hats" id="CLI_MdqZdbJxoxAB"
//!     cause=not connected to nats://127.0.0.1:4222: the connection was lost
//! INFO psrpc::bus: bus connected again service="Hats" id="CLI_MdqZdbJxoxAB" after=1.07150358s
//! INFO psrpc::bus: subscriptions are live again service="Hats" id="CLI_MdqZdbJxoxAB" count=2
//! ```
//!
//! The client library logs too, under the targets `async_nats::*`. It calls it an error that it
//! does not connect again by itself ("max reconnection attempts reached"): the bus does.
//!
//! A program reads the same from the bus's [`status`](Bus::status), and gets the [events](BusEvent)
//! from [`Monitor::watch`]. Each carries the words of the server or the operating system, and no
//! secret:
//!
//! | event | when |
//! |---|---|
//! | [`ConnectionLost`](BusEvent::ConnectionLost) | the connection was lost: once per outage |
//! | [`Reconnected`](BusEvent::Reconnected) | a server has accepted the bus and answers: once per outage |
//! | [`Stopped`](BusEvent::Stopped) | the bus was closed, or its runtime has shut down |
//! | [`SubscriptionRefused`](BusEvent::SubscriptionRefused) | the server refuses a subscription: once until it is live |
//! | [`Misrouted`](BusEvent::Misrouted) | frames of a queue came here that nobody here takes |
//!
//! # Healing
//!
//! Once a subscription was live the bus does not give it up. After a lost connection or a refusal,
//! as when an administrator takes permissions away, the subscriber is told once that it is
//! [interrupted](psrpc::bus::Delivery::Interrupted). The bus then asks the server again, at least
//! once a second, until the subscription is [live](psrpc::bus::Delivery::Live) or dropped.
//!
//! The client library keeps 128 errors of the server at most. If the server refuses so much at once
//! that some of it may be unknown, the bus connects anew and asks for everything again.
//!
//! A program that may start before its server sets [`NatsOptions::wait_for_server`].
//!
//! # Credentials
//!
//! A URL may contain a token (`nats://token@host`) or a user and a password.
//! [`NatsOptions::credentials`] sets a function that returns [`Credentials`] instead: a token, a
//! user, and with the feature `nkeys` an NKey or the content of a credentials file
//! ([`NatsOptions::credentials_file`]). The bus calls the function for each connection. If the
//! server ends a connection because credentials have expired or changed, the bus reports the words
//! of the server as the cause, and tries again until the server accepts what the function returns.
//!
//! # TLS
//!
//! With the feature `tls`, the bus connects to `tls://` URLs by TLS 1.2 or 1.3 (rustls with ring)
//! and never without TLS. [`NatsOptions::tls`] sets other authorities than those of the system, and
//! a client certificate. The bus calls this function for each connection, too, so replaced files
//! are read again. [`NatsOptions::tls_first`] is for servers that require the handshake first.
//!
//! With a `nats://` URL the server decides: if it requires TLS, the client library trusts the
//! authorities of the system, or what the options of [`NatsBus::from_client`] say.
//!
//! # Clusters
//!
//! Give several URLs, separated by commas. The bus connects to one server and remembers the others
//! that it announces (`connect_urls`), so it stays connected even if none of the named servers is
//! left. The certificates of announced servers must be for the announced hosts
//! (`client_advertise`). The client library reports announced servers at each connection only: the
//! bus learns of a server that joins the cluster later when it reconnects.
//!
//! When a server announces that it is shutting down (lame duck mode), the bus connects to another
//! server and then leaves. It reports [`ConnectionLost`](BusEvent::ConnectionLost) and
//! [`Reconnected`](BusEvent::Reconnected) at once. Calls and streams continue; messages that the
//! old server has not delivered by then are lost. If there is no other server, the bus stays to the
//! end.
//!
//! # What the server must allow
//!
//! Beside the subjects of the services (`SRV.>` and `CLI.>`) the user must be allowed to publish
//! and subscribe to `_INBOX.>`, or to what [`NatsOptions::inbox_prefix`] says.

#![forbid(unsafe_code)]
#![deny(missing_docs, missing_debug_implementations)]

mod cause;
mod connect;
mod connection;
mod credentials;
mod error;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod io;
mod listeners;
mod options;
mod pace;
mod permissions;
mod publish;
mod reader;
mod refusal;
mod signal;
mod status;
mod subject;
mod subscribe;
#[cfg(feature = "tls")]
mod tls;
mod url;

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_nats::ConnectOptions;
#[cfg(doc)]
use psrpc::bus::BusEvent;
use psrpc::bus::{Accepted, Bus, BusId, Full, Monitor, Offer, Sink, Status, Subscription, WakeList};
use psrpc::proto::Channel;
use psrpc::{Runtime, SubscriptionKind};
use tokio::sync::oneshot;

pub use crate::credentials::Credentials;
#[cfg(feature = "nkeys")]
pub use crate::credentials::CredentialsError;
pub use crate::error::{ConnectError, UrlProblem};
pub use crate::options::NatsOptions;
#[cfg(feature = "tls")]
pub use crate::tls::TlsOptions;

use crate::connection::{Shared, Task};
use crate::io::Io;
use crate::url::Servers;

/// A bus over NATS. Cheap to clone; all clones share one connection.
///
/// Dropping the last clone and the last subscription closes the connection, after the bus has sent
/// every frame that was published before.
#[derive(Clone)]
pub struct NatsBus(Arc<CloseOnDrop>);

struct CloseOnDrop(Arc<Shared>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl NatsBus {
    /// Connects to the first server that accepts, from a comma-separated list of URLs of the form
    /// `nats://[user:password@]host[:port]` or `nats://token@host`. With the feature `tls`, the
    /// scheme of all URLs may be `tls` instead.
    ///
    /// Users and passwords are percent-encoded. The first credentials in the list are used for all
    /// servers. The bus [runs](crate#where-it-runs) on `runtime`.
    ///
    /// # Errors
    ///
    /// Returns an error if a URL is invalid or no server accepts the connection.
    pub async fn connect(urls: &str, runtime: impl Runtime) -> Result<Self, ConnectError> {
        Self::connect_with(urls, runtime, NatsOptions::new()).await
    }

    /// Connects with options.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`connect`](Self::connect).
    pub async fn connect_with(
        urls: &str,
        runtime: impl Runtime,
        options: NatsOptions,
    ) -> Result<Self, ConnectError> {
        Self::from_client(urls, ConnectOptions::new(), runtime, options).await
    }

    /// Connects with options of the client library, for settings that [`NatsOptions`] does not
    /// have.
    ///
    /// The bus overrides the settings that [`NatsOptions`] has, the event callback, the client
    /// capacity and the number of reconnects: the bus reconnects by itself. With `tls://` URLs, it
    /// also overrides the TLS settings; with `nats://` URLs they apply if they or the server require
    /// TLS.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`connect`](Self::connect).
    pub async fn from_client(
        urls: &str,
        client: ConnectOptions,
        runtime: impl Runtime,
        options: NatsOptions,
    ) -> Result<Self, ConnectError> {
        let servers = Servers::parse(urls)?;
        #[cfg(feature = "tls")]
        options.check(&servers)?;
        let runtime: Arc<dyn Runtime> = Arc::new(runtime);
        let io = Io::new(&runtime).await.map_err(ConnectError::Thread)?;
        let shared = Arc::new(Shared::new(servers, client, options, Arc::clone(&runtime), io));
        let bus = Self(Arc::new(CloseOnDrop(Arc::clone(&shared))));
        let (first, connected) = oneshot::channel();
        runtime.spawn(Box::pin(Task::new(Arc::clone(&shared)).run(first)));
        // The sender is dropped only if the runtime dropped the task.
        let stopped = || Err(ConnectError::Stopped { servers: shared.names.clone() });
        connected.await.unwrap_or_else(|_| stopped())?;
        Ok(bus)
    }
}

impl Bus for NatsBus {
    fn id(&self) -> Option<BusId> {
        Some(BusId::of(&self.0))
    }

    fn publish(&self, offer: Offer<'_>, wakes: &mut WakeList) -> Result<Accepted, Full> {
        self.0.0.publisher.publish(offer, wakes)
    }

    fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.0.0.publisher.poll_ready(cx)
    }

    fn subscribe(
        &self,
        channel: &Channel,
        kind: SubscriptionKind,
        sink: Sink,
        wakes: &mut WakeList,
    ) -> Subscription {
        if let Err(failure) = subject::check(channel.server()) {
            sink.fail(failure.into(), wakes);
            return Subscription::new(|| {});
        }
        let id = self.0.0.subscriptions.subscribe(channel, kind, sink, wakes);
        let bus = self.clone();
        Subscription::new(move || {
            if let Some(id) = id {
                bus.0.0.subscriptions.unsubscribe(id);
            }
        })
    }

    fn monitor(&self) -> Option<&Monitor> {
        Some(&self.0.0.monitor)
    }
}

impl fmt::Debug for NatsBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let connected = matches!(self.status(), Status::Connected);
        let servers = &self.0.0.names;
        f.debug_struct("NatsBus").field("servers", servers).field("connected", &connected).finish()
    }
}
