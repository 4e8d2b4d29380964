//! Options of clients and servers, each with its default, and the names that they refuse.

use alloc::string::String;
use core::fmt;
use core::time::Duration;

use psrpc_proto::{InvalidId, Text};

use crate::limits::{ClientLimits, ServerLimits};

/// Options of a [`Client`](crate::Client).
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// The service that it calls, by its name on the wire.
    pub service: Text,
    /// Its id, which no other client of the service may have; empty to have one drawn. Default:
    /// empty.
    pub id: Text,
    /// How long a call may take that does not say so itself. Default 3 s.
    pub timeout: Duration,
    /// How long a call waits for bids. Default 1 s.
    pub affinity_timeout: Duration,
    /// How long a call of an affinity method waits for better bids after the first. Default 200 ms.
    pub short_circuit_timeout: Duration,
    /// How long a close waits for the bus to confirm the end of the subscriptions. Default 3 s.
    pub close_timeout: Duration,
    /// Whether servers are told when a call is canceled, so that its handler stops: by a grant to
    /// nobody. Default false, since the protocol has no cancellation and Go's servers would not
    /// stop; it is for peers within one process.
    pub tells_cancellation: bool,
    /// How far the servers' wall clocks may be behind ours before the messages of their streams
    /// count as expired. Default 0.
    pub skew_allowance: Duration,
    /// How long after it was sent a message of a stream may expire at the latest; a later expiry is
    /// moved there. Default 1 h. A message that claims to be sent further ahead of our wall
    /// clock than this is dropped.
    pub horizon: Duration,
    /// Whether it opens streams, for which it subscribes to one more channel. Default false.
    pub opens_streams: bool,
    /// How its streams behave.
    pub streams: StreamConfig,
    /// What it holds at most.
    pub limits: ClientLimits,
}

impl ClientConfig {
    /// The defaults for a client of `service`.
    pub fn new(service: impl Into<Text>) -> Self {
        Self {
            service: service.into(),
            id: Text::EMPTY,
            timeout: Duration::from_secs(3),
            affinity_timeout: Duration::from_secs(1),
            short_circuit_timeout: Duration::from_millis(200),
            close_timeout: Duration::from_secs(3),
            tells_cancellation: false,
            skew_allowance: Duration::ZERO,
            horizon: Duration::from_secs(3600),
            opens_streams: false,
            streams: StreamConfig::DEFAULT,
            limits: ClientLimits::DEFAULT,
        }
    }
}

/// Options of a [`Server`](crate::Server).
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// The service that it serves, by its name on the wire.
    pub service: Text,
    /// Its id, which no other server of the service may have; empty to have one drawn. Default:
    /// empty.
    pub id: Text,
    /// How long a drain waits for the bus to confirm that nothing more will come. Default 3 s. What
    /// comes later is not accepted.
    ///
    /// Requests in flight are waited for until they expire, however long that is.
    pub drain_timeout: Duration,
    /// How long a message of a stream, or an update, may take that does not say so itself. Default
    /// 3 s.
    pub timeout: Duration,
    /// How many requests it decides upon, bids for and runs at a time; those that open streams do
    /// not count. Default: no limit but [`ServerLimits::requests`]. One more gets no bid, and
    /// is answered `resource_exhausted` if the method is queue-routed, since no other server
    /// saw it ([`Reason::Busy`](crate::Reason::Busy)).
    ///
    /// A bid counts, since it may be granted.
    pub concurrency: Option<usize>,
    /// How long after the end of its streams a drain waits for their handlers. Default 1 s.
    pub linger: Duration,
    /// Whether the handler of a call that is granted to nobody stops
    /// ([`ClientConfig::tells_cancellation`]). Default false: it is for peers within one
    /// process, since anybody on a bus can send such a grant.
    pub heeds_cancellation: bool,
    /// How its streams behave.
    pub streams: StreamConfig,
    /// How far the clients' wall clocks may be behind ours before their requests count as expired.
    /// Default 0.
    ///
    /// Safe for claimed calls, where the client's grant decides. A request without a claim may run
    /// up to this long after its caller gave up.
    pub skew_allowance: Duration,
    /// How long after it was sent a request may expire at the latest; a later expiry is moved
    /// there. Default 1 h.
    ///
    /// A request that claims to be sent further ahead of our wall clock than this is dropped.
    pub horizon: Duration,
    /// What it holds at most.
    pub limits: ServerLimits,
}

impl ServerConfig {
    /// The defaults for a server of `service`.
    pub fn new(service: impl Into<Text>) -> Self {
        Self {
            service: service.into(),
            id: Text::EMPTY,
            drain_timeout: Duration::from_secs(3),
            timeout: Duration::from_secs(3),
            concurrency: None,
            linger: Duration::from_secs(1),
            heeds_cancellation: false,
            streams: StreamConfig::DEFAULT,
            skew_allowance: Duration::ZERO,
            horizon: Duration::from_secs(3600),
            limits: ServerLimits::DEFAULT,
        }
    }
}

/// How the streams of a client or a server behave (PROTOCOL section 8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamConfig {
    /// How long nothing may be heard on a stream before it ends. Default: for ever, since the
    /// protocol has no keepalive and a peer may be silent on purpose.
    pub idle_timeout: Option<Duration>,
    /// What happens to a message for which its consumer has no room. Default: it is discarded.
    pub slow_consumer: SlowConsumer,
}

impl StreamConfig {
    /// The defaults.
    pub const DEFAULT: StreamConfig =
        StreamConfig { idle_timeout: None, slow_consumer: SlowConsumer::Discard };
}

impl Default for StreamConfig {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// What happens to a message of a stream for which its consumer has no room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SlowConsumer {
    /// It is discarded: its sender hears nothing, and gets `deadline_exceeded`. The stream goes on.
    #[default]
    Discard,
    /// The stream is closed, with "stream message discarded by slow consumer", `unavailable`.
    Close,
}

/// A service, method or id that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The service has no name.
    #[error("the service must have a name")]
    NoService,
    /// The method has no name.
    #[error("the method must have a name")]
    NoMethod,
    /// The service's name would change a NATS subject.
    #[error("service {}: {cause}", Shortened(.service))]
    Service {
        /// The service.
        service: String,
        /// What is wrong with it.
        cause: InvalidId,
    },
    /// The id of the client or server cannot be carried.
    #[error("id {}: {cause}", Shortened(.id))]
    Id {
        /// The id.
        id: String,
        /// What is wrong with it.
        cause: InvalidId,
    },
    /// A topic is longer than the limit.
    #[error("topic {} of {method}: longer than {limit} bytes", Shortened(.topic))]
    Topic {
        /// The method.
        method: String,
        /// The parts of the topic, joined.
        topic: String,
        /// The limit, in bytes of all its parts together.
        limit: usize,
    },
}

/// A name in an error: enough of it to know it by.
struct Shortened<'a>(&'a str);

impl fmt::Display for Shortened<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 64;
        match self.0.char_indices().nth(SHOWN) {
            Some((end, _)) => write!(f, "{:?}...", &self.0[..end]),
            None => write!(f, "{:?}", self.0),
        }
    }
}
