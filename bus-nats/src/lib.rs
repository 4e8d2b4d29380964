//! PSRPC's bus over NATS.
//!
//! ```no_run
//! # async fn example(runtime: impl psrpc::Runtime) -> Result<(), psrpc_bus_nats::ConnectError> {
//! use psrpc_bus_nats::NatsBus;
//!
//! let bus = NatsBus::connect("nats://user:password@localhost:4222", runtime).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Where it runs
//!
//! The NATS client needs tokio, so each bus has a thread of its own, named `psrpc-nats`, with a small tokio runtime on
//! it: whoever uses the bus may run on anything, and what blocks there does not hold up the connection. The thread ends
//! with the last clone of the bus and the last of its subscriptions, once what was accepted is written.
//!
//! # Publishing
//!
//! A frame waits in a queue that is bounded in bytes ([`NatsOptions::queue_bytes`]) until the connection takes it. Its
//! receipt says *published* once it is on the socket: NATS confirms nothing, so it can be lost behind that, and how
//! many got it is not known. The receipt of the first frame on a subject waits until the server has had the time to
//! refuse it, and fails if it has. It *fails* as well when there is no connection, when the connection is lost before
//! it is on the socket (the server may have it all the same), when it is over the server's `max_payload`, and when the
//! channel is no NATS subject: ids of peers become part of subjects, so empty parts, whitespace, control characters,
//! `*` and `>` are refused.
//!
//! # Subscribing
//!
//! All channels with one subject share one NATS subscription, in the queue group `bus` for queue subscriptions; frames
//! find their channel by the local name in their envelope. Queue subscribers of a channel on one bus take turns. A
//! frame that does not decode goes to one subscriber of its subject, and one for a channel that nobody here listens to,
//! on a queue, to one that can answer for it ([`Sink::untaken`]).
//!
//! Clients that subscribe to queue-routed updates without a topic are in one group with the servers of the queue-routed methods of
//! that service, and each loses what it gets of the other's: give such updates a service of their own, or a topic.
//!
//! A subscription is live once the server has answered a message sent after it, on the same connection: the next frame
//! published by anybody on that server reaches it (the other servers of a cluster learn of it a moment later). An
//! unsubscribe ends in the same way: whatever the server had handed out by then is delivered first. If the server
//! refuses a subscription, it fails with what the server says.
//!
//! # A lost connection
//!
//! It is made again without end, at most a second apart ([`NatsOptions::reconnect_delay`]). Publishes fail at once
//! meanwhile. Once the server has all subscriptions again, each reports one gap.
//!
//! # What the server must allow
//!
//! Beside the subjects of the services (`SRV.>` and `CLI.>`): to publish and subscribe to `_INBOX.>`, or what
//! [`NatsOptions::inbox_prefix`] says.

#![forbid(unsafe_code)]
#![deny(missing_docs, missing_debug_implementations)]

mod echo;
mod error;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod grants;
mod home;
mod link;
mod options;
mod outbox;
mod reader;
mod shared;
mod subject;
mod url;

use std::fmt;
use std::future::ready;
use std::sync::{Arc, OnceLock, Weak};
use std::task::{Context, Poll, Waker};

use async_nats::Client;
use async_nats::connection::State;
use psrpc::bus::{Accepted, Bus, BusId, Full, Monitor, Offer, Sink, Subscription, Wakes};
use psrpc::proto::Channel;
use psrpc::{Runtime, SubscriptionKind};

pub use crate::error::{ConnectError, UrlProblem};
pub use crate::options::NatsOptions;

use crate::echo::Echo;
use crate::home::Home;
use crate::shared::Shared;
use crate::url::{Credentials, Servers};

/// A bus over NATS. Cheap to clone; all clones are one bus, on one connection.
#[derive(Clone)]
pub struct NatsBus(Arc<Ends>);

/// Ends the bus when it is dropped.
struct Ends(Arc<Shared>);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.outbox.close();
    }
}

impl NatsBus {
    /// Connects to the first server that lets us in, of URLs with commas between them:
    /// `nats://[user:password@]host[:port]`, or `nats://token@host`. Users and passwords are percent-encoded; those of
    /// the first URL that has any are used for all servers. `runtime` is the clock of the bus's events.
    ///
    /// # Errors
    ///
    /// When a URL is none of a NATS server, or no server lets us in.
    pub async fn connect(urls: &str, runtime: impl Runtime) -> Result<Self, ConnectError> {
        Self::connect_with(urls, runtime, NatsOptions::new()).await
    }

    /// Connects with options.
    ///
    /// # Errors
    ///
    /// As for [`connect`](Self::connect).
    pub async fn connect_with(
        urls: &str,
        runtime: impl Runtime,
        options: NatsOptions,
    ) -> Result<Self, ConnectError> {
        let servers = Servers::parse(urls)?;
        let names = servers.to_string();
        let home = Home::new().map_err(ConnectError::Thread)?;
        let hears = Arc::new(OnceLock::new());
        let mut attempts = 0;
        let client = loop {
            let connecting = home.spawn(connect(servers.clone(), options.clone(), Arc::clone(&hears)));
            let connected = connecting.await;
            match connected.unwrap_or_else(|_| Err(ConnectError::Panicked { servers: names.clone() })) {
                Err(ConnectError::Refused { .. } | ConnectError::TimedOut { .. })
                    if options.wait_for_server =>
                {
                    attempts += 1;
                    let delay = options::delay(attempts, options.reconnect_delay);
                    runtime.sleep_until(runtime.now().time + delay).await;
                }
                outcome => break outcome?,
            }
        };
        let bus = Self::start(client, names, options, home, Arc::new(runtime)).await?;
        // Nothing that concerns anybody was told before.
        hears.get_or_init(|| Arc::downgrade(&bus.0.0));
        Ok(bus)
    }

    /// A bus on the connection of a client that is there already.
    ///
    /// Its connection lives on the runtime that the client was made on: when that shuts down, what is published or subscribed
    /// fails.
    ///
    /// How it reconnects, its capacities and its inbox prefix are then the client's own affair. And since its events go
    /// elsewhere, some things are not noticed: that the server refuses a frame or a subscription, and that the client
    /// had no room for a message.
    ///
    /// # Errors
    ///
    /// When the client is not connected, or the server does not answer on an inbox.
    pub async fn from_client(client: Client, runtime: impl Runtime) -> Result<Self, ConnectError> {
        let home = Home::new().map_err(ConnectError::Thread)?;
        let info = client.server_info();
        let name = format!("nats://{}:{}", info.host, info.port);
        if client.connection_state() != State::Connected {
            return Err(ConnectError::Refused {
                servers: name,
                cause: "the client is not connected".to_owned(),
            });
        }
        let options = NatsOptions::new();
        Self::start(client, name, options, home, Arc::new(runtime)).await
    }

    /// A bus on a connection, once that has proven to be one.
    async fn start(
        client: Client,
        servers: String,
        options: NatsOptions,
        home: Home,
        runtime: Arc<dyn Runtime>,
    ) -> Result<Self, ConnectError> {
        let (listens, limit) = (Echo::new(client.clone()), options.connection_timeout);
        let proven = home.spawn(async move {
            let (echo, hear) = listens.await.ok()?;
            tokio::spawn(hear);
            let answered = tokio::time::timeout(limit, echo.clone().round_trip()).await;
            answered.is_ok().then_some(echo)
        });
        let Ok(Some(echo)) = proven.await else {
            return Err(ConnectError::Inbox { servers, prefix: options.inbox_prefix });
        };
        let shared = Arc::new(Shared::new(client, echo, servers, options, home, runtime));
        shared.start();
        Ok(Self(Arc::new(Ends(shared))))
    }
}

/// Connects a client that tells of its events.
async fn connect(
    servers: Servers,
    options: NatsOptions,
    hears: Arc<OnceLock<Weak<Shared>>>,
) -> Result<Client, ConnectError> {
    let (names, limit) = (servers.to_string(), options.connection_timeout);
    let mut client = options.client().event_callback(move |event| {
        if let Some(shared) = hears.get().and_then(Weak::upgrade) {
            link::take(&shared, event);
        }
        ready(())
    });
    client = match servers.credentials {
        Some(Credentials::Token(token)) => client.token(token),
        Some(Credentials::User { name, password }) => client.user_and_password(name, password),
        None => client,
    };
    // Names may take long to resolve, and stand for several addresses.
    let all = limit * (servers.addresses.len() as u32 + 1);
    match tokio::time::timeout(all, client.connect(servers.addresses)).await {
        Ok(Ok(client)) => Ok(client),
        Ok(Err(error)) if error.kind() == async_nats::ConnectErrorKind::TimedOut => {
            Err(ConnectError::TimedOut { servers: names, limit })
        }
        Ok(Err(error)) => Err(ConnectError::Refused { servers: names, cause: error.to_string() }),
        Err(_) => Err(ConnectError::TimedOut { servers: names, limit }),
    }
}

impl Bus for NatsBus {
    fn id(&self) -> Option<BusId> {
        Some(BusId::of(&self.0))
    }

    fn publish(&self, offer: Offer<'_>, wakes: &mut Wakes) -> Result<Accepted, Full> {
        let shared = &self.0.0;
        if let Err(fault) = subject::check(offer.channel().server()) {
            return Ok(Accepted::Failed(fault.into()));
        }
        if !shared.is_up() {
            return Ok(Accepted::Failed(shared.not_connected().into()));
        }
        let accepted = shared.outbox.push(offer)?;
        wakes.push(Waker::from(Arc::clone(shared)));
        Ok(accepted)
    }

    fn poll_room(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.0.0.outbox.poll_room(cx)
    }

    fn subscribe(
        &self,
        channel: &Channel,
        kind: SubscriptionKind,
        sink: Sink,
        wakes: &mut Wakes,
    ) -> Subscription {
        if let Err(fault) = subject::check(channel.server()) {
            sink.fail(fault.into(), wakes);
            return Subscription::new(|| {});
        }
        let (subject, key) = self.0.0.subscribe(channel.server(), kind, channel.local(), sink, wakes);
        let (bus, channel) = (self.clone(), channel.clone());
        Subscription::new(move || bus.0.0.unsubscribe(&subject, channel.local(), key))
    }

    fn monitor(&self) -> Option<&Monitor> {
        Some(&self.0.0.monitor)
    }
}

impl fmt::Debug for NatsBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shared = &self.0.0;
        f.debug_struct("NatsBus")
            .field("servers", &shared.servers)
            .field("connected", &shared.is_up())
            .finish()
    }
}
