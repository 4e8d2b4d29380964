//! PSRPC over NATS, wire-compatible with the Go implementation.
//!
//! ```no_run
//! # use psrpc_tokio as psrpc;
//! use psrpc_bus_nats::{NatsBus, NatsOptions};
//!
//! # async fn example() -> Result<(), psrpc::Error> {
//! let bus = NatsBus::connect("nats://localhost:4222", psrpc::default_runtime()?).await?;
//!
//! // With options: a cluster, which need not be up yet.
//! let urls = "nats://user:password@one.internal:4222,nats://user:password@two.internal:4222";
//! let options = NatsOptions::new().wait_for_server(true);
//! let bus = NatsBus::connect_with(urls, psrpc::default_runtime()?, options).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # What the server must allow
//!
//! The user needs permissions to publish and subscribe to the subjects of the services (`SRV.>` and
//! `CLI.>`), and to `_INBOX.>` or the prefix that [`NatsOptions::inbox_prefix`] sets.
//! `docs/operations.md` in the repository has recipes for the users of one service and for
//! accounts, a list of all errors, and advice on choosing a bus.
//!
//! # Runtimes
//!
//! The NATS client library needs tokio. If you pass a tokio runtime, the bus runs on it. Otherwise
//! the bus starts one thread, `psrpc-nats`, with a small tokio runtime for the connection. The
//! thread ends with the last clone of the bus and the last of its subscriptions, after it has
//! written all published frames. An idle bus wakes only for the pings of the library
//! ([`NatsOptions::ping_interval`]).
//!
//! If the runtime shuts down, the bus stops for good: publishing and subscribing fail at once.
//!
//! # Publishing
//!
//! The publishing thread encodes a frame and hands it to the client library as soon as it holds no
//! lock. If frames follow each other closely, a task on the runtime first waits for one turn of the
//! executor and then writes the frames of that turn together. If the library has no room, frames
//! wait in a queue that is bounded in bytes ([`NatsOptions::queue_bytes`]). A frame of 64 KiB or
//! more is encoded in a task of its own. Later frames of its channel wait for it, and those of
//! other channels do not.
//!
//! NATS confirms no publish. On a subject that the server is known to allow, the bus reports a
//! frame as published once it has accepted the frame. If the connection is lost later, the frame
//! may be lost too. The first frames on a subject are reported as published after the server has
//! had time to refuse them. A publish fails if
//!
//! - there is no connection, or it is lost before the frame is confirmed;
//! - the server refuses the frame (the error has the server's message);
//! - the frame is larger than the server's `max_payload`;
//! - the name of the channel cannot be a NATS subject. Ids of peers are parts of subjects, so the
//!   bus refuses empty parts, whitespace, control characters, `*` and `>`.
//!
//! # Subscribing
//!
//! All channels with one subject share one NATS subscription, in the queue group `bus` for queue
//! subscriptions. The bus finds the channel of a frame by the local name in its envelope. Queue
//! subscribers to one channel on one bus take turns. A frame that does not decode goes to one
//! subscriber of its subject.
//!
//! A queue's frame may arrive for a channel that has no subscriber on this bus. The bus then passes
//! it to another subscriber of the subject, so that a server can respond that it lacks the method,
//! and reports an event.
//!
//! A subscription is live once the server has echoed a message that the bus sent after it: the next
//! frame that anyone publishes on that server reaches the subscriber. Other servers of a cluster
//! learn of the subscription a moment later. An unsubscribe ends in the same way: all frames that
//! the server had sent by then are delivered first.
//!
//! A subscription that the server refuses before it was ever live fails with the server's message.
//! The client library reports refusals in a task of its own. If that task is late, the subscription
//! is live for a moment and then interrupted.
//!
//! # Updates and requests
//!
//! If a service has both queue-routed methods and updates with a queue subscription, and both have
//! the same topic or none, then its servers and subscribers share one subject and one queue group.
//! NATS sends each message to one member of the group. About half of the updates and of the
//! requests go to a member that cannot use them. Go fleets have the same problem. Do one of
//! these:
//!
//! - put the updates into a service of their own;
//! - give them a topic of their own;
//! - set [`NatsOptions::separate_updates`] on every bus, if no Go client subscribes to them.
//!
//! # Outages
//!
//! If the connection is lost, the bus reconnects with growing delays
//! ([`NatsOptions::reconnect_delay`]), to any server that it was given or that the cluster
//! announced. Until then, publishing fails at once, and subscriptions are interrupted. You need not
//! create clients and servers again. They log an outage like this, of a server that was restarted:
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
//! The client library logs too, under the targets `async_nats::*`. Its error "max reconnection
//! attempts reached" is expected, because the bus reconnects in its place.
//!
//! A program gets the same information from the bus's [`status`](Bus::status), and the
//! [events](BusEvent) from [`Monitor::watch`]. Each event has the message of the server or the
//! operating system, without secrets:
//!
//! | event | when |
//! |---|---|
//! | [`ConnectionLost`](BusEvent::ConnectionLost) | the connection was lost: once per outage, and once more if a server then refuses the bus: its credentials, a certificate or its inbox |
//! | [`Reconnected`](BusEvent::Reconnected) | a server has accepted the bus and responds: once per outage |
//! | [`Stopped`](BusEvent::Stopped) | the bus was closed, or its runtime has shut down |
//! | [`SubscriptionRefused`](BusEvent::SubscriptionRefused) | the server refused a subscription, for the first time since it was last live |
//! | `Misrouted` | frames of a queue arrived for a channel that has no subscriber on this bus |
//!
//! If your program may start before its server, set [`NatsOptions::wait_for_server`].
//!
//! # Refused subscriptions
//!
//! The bus keeps every subscription that was ever live. After a lost connection, or after an
//! administrator has revoked permissions, the subscriber is told once that it is
//! [interrupted](psrpc::bus::Delivery::Interrupted). The bus then asks the server again, at least
//! once a second, until the subscription is [live](psrpc::bus::Delivery::Live) or dropped.
//!
//! The client library keeps at most 128 errors of the server. If the server refuses so many
//! requests at once that errors may be missing, the bus reconnects and subscribes to everything
//! again.
//!
//! # Credentials
//!
//! A URL may contain a token (`nats://token@host`) or a user and a password.
//! [`NatsOptions::credentials`] sets a function that returns [`Credentials`] instead: a token, a
//! user, and with the feature `nkeys` an NKey or the content of a credentials file
//! ([`NatsOptions::credentials_file`]). The bus calls the function for each connection. If the
//! server ends a connection because credentials have expired or changed, the bus reports the
//! server's message as the cause, and tries again until the server accepts what the function
//! returns.
//!
//! # TLS
//!
//! With the feature `tls`, the bus connects to `tls://` URLs by TLS 1.2 or 1.3 (rustls with ring)
//! and never without TLS. [`NatsOptions::tls`] sets a function that returns [`TlsOptions`]:
//! authorities other than those of the system, and a client certificate. The bus calls this
//! function for each connection, too, so it can read replaced files. [`NatsOptions::tls_first`] is
//! for servers that require the handshake first.
//!
//! With a `nats://` URL the server decides: if it requires TLS, the client library uses the TLS
//! settings of the options that were passed to [`NatsBus::from_client`], and by default trusts the
//! authorities of the system.
//!
//! # Clusters
//!
//! Give several URLs, separated by commas. The bus connects to one server and remembers the others
//! that it announces (`connect_urls`), so it stays connected even if none of the named servers is
//! left. The certificates of announced servers must be for the announced hosts
//! (`client_advertise`), or for the name that `TlsOptions::server_name` sets. The client library
//! reports announced servers at each connection only: the bus learns of a server that joins the
//! cluster later when it reconnects.
//!
//! When a server announces that it is shutting down (lame duck mode), the bus connects to another
//! server and then leaves. It reports [`ConnectionLost`](BusEvent::ConnectionLost), immediately
//! followed by [`Reconnected`](BusEvent::Reconnected). Calls and streams continue, and every frame
//! that the bus has accepted is published. Messages that the old server has not delivered by then
//! are lost. If there is no other server, the bus stays to the end.

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
pub use psrpc_bus_net::TlsOptions;

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
    /// servers. The bus [runs](crate#runtimes) on `runtime`.
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
    /// also overrides the TLS settings; with `nats://` URLs they apply if they or the server
    /// require TLS.
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
