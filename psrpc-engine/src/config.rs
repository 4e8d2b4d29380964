//! Options of clients and servers with their defaults, and configuration errors.

use alloc::string::String;
use core::fmt;
use core::time::Duration;

use psrpc_proto::{InvalidId, Text};

use crate::limits::{ClientLimits, ServerLimits};

/// The default horizon. Longer than usual calls, most of which have a timeout of seconds; short
/// enough that forged requests, which expire as late as they can, do not fill a table for long.
const HORIZON: Duration = Duration::from_secs(5 * 60);

/// Options of a [`Client`](crate::Client).
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// The service to call, by its name on the wire.
    pub service: Text,
    /// The client's id, unique among the clients of the service. If empty, an id is drawn. Default:
    /// empty.
    pub id: Text,
    /// The timeout of a call that sets none. Default: 3 s.
    pub timeout: Duration,
    /// How long a call waits for bids. Default: 1 s.
    pub affinity_timeout: Duration,
    /// How long a call of an affinity method waits for better bids after the first. Default: 200
    /// ms.
    pub short_circuit_timeout: Duration,
    /// How long a close waits for the bus to confirm the end of the subscriptions and to take the
    /// closes of streams. Default: 3 s.
    pub close_timeout: Duration,
    /// Whether a canceled call sends a grant to nobody (one with an empty server id), so that a
    /// server that [heeds it](ServerConfig::heeds_cancellation) stops its handler. Meant for peers
    /// within one process: the protocol has no cancellation, and Go servers ignore it. Default:
    /// false.
    pub tells_cancellation: bool,
    /// How far the servers' wall clocks may be behind the client's before the messages of their
    /// streams count as expired. Default: 0.
    pub skew_allowance: Duration,
    /// The longest lifetime of a stream message, counted from when it was sent. A later expiry is
    /// moved to this limit. A message whose send time is further in the future than this is
    /// dropped. Default: 5 min.
    pub horizon: Duration,
    /// Whether the client can open streams. If so, it subscribes to one more channel. Default:
    /// false.
    pub opens_streams: bool,
    /// How streams behave.
    pub streams: StreamConfig,
    /// Memory limits.
    pub limits: ClientLimits,
}

impl ClientConfig {
    /// Creates the default configuration for a client of `service`.
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
            horizon: HORIZON,
            opens_streams: false,
            streams: StreamConfig::DEFAULT,
            limits: ClientLimits::DEFAULT,
        }
    }
}

/// Options of a [`Server`](crate::Server).
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// The service to serve, by its name on the wire.
    pub service: Text,
    /// The server's id, unique among the servers of the service. If empty, an id is drawn. Default:
    /// empty.
    pub id: Text,
    /// How long a drain waits for the bus to confirm the end of the subscriptions and to take the
    /// closes of streams. Requests that arrive later are dropped. Default: 3 s.
    ///
    /// The drain also waits for requests in flight until they expire, however long that takes.
    pub drain_timeout: Duration,
    /// The timeout of a stream message or an update that sets none. Default: 3 s.
    pub timeout: Duration,
    /// How many requests the server handles at a time: those it decides on, has bid for, or runs.
    /// Requests that open streams do not count. Beyond this limit the server makes no bid
    /// ([`Reason::Busy`](crate::Reason::Busy)). It answers a request of a queue-routed or
    /// single-server method with `resource_exhausted`, because no other server will. Default: no
    /// limit but [`ServerLimits::requests`].
    ///
    /// A bid counts because it may be granted.
    pub concurrency: Option<usize>,
    /// How long a drain waits for stream handlers after their streams have ended. Default: 1 s.
    pub linger: Duration,
    /// Whether a grant to nobody stops the handler of that call
    /// ([`ClientConfig::tells_cancellation`]). Meant for peers within one process, because any peer
    /// on a bus can send such a grant. Default: false.
    pub heeds_cancellation: bool,
    /// How streams behave.
    pub streams: StreamConfig,
    /// How far the clients' wall clocks may be behind the server's before their requests count as
    /// expired. Default: 0.
    ///
    /// This is safe for claimed calls, which the client's grant decides. A request without a claim
    /// may run up to this long after its caller gave up.
    pub skew_allowance: Duration,
    /// The longest lifetime of a request, counted from when it was sent. A later expiry is moved to
    /// this limit, so no handler runs longer. Default: 5 min.
    ///
    /// A request whose send time is further in the future than this is dropped.
    ///
    /// A request is remembered for up to twice this long, because its send time may be ahead. A
    /// peer that fills a table of [`ServerLimits`] can keep it full for that long after it stops.
    pub horizon: Duration,
    /// Memory limits.
    pub limits: ServerLimits,
}

impl ServerConfig {
    /// Creates the default configuration for a server of `service`.
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
            horizon: HORIZON,
            limits: ServerLimits::DEFAULT,
        }
    }
}

/// How the streams of a client or a server behave (PROTOCOL section 8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamConfig {
    /// How long a stream may be silent before it ends. Default: forever, because the protocol has
    /// no keepalive and a silent peer may be alive.
    pub idle_timeout: Option<Duration>,
    /// What happens to a message when its consumer has no room. Default: it is held back.
    pub slow_consumer: SlowConsumer,
}

impl StreamConfig {
    /// The defaults.
    pub const DEFAULT: StreamConfig =
        StreamConfig { idle_timeout: None, slow_consumer: SlowConsumer::HoldBack };
}

impl Default for StreamConfig {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// What happens to a stream message when its consumer has no room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SlowConsumer {
    /// Holds the message back until the consumer has room for it, and acknowledges it only then, so
    /// its sender waits. A message that expires first is discarded, as is one beyond
    /// [`StreamLimits::held_per_stream`](crate::StreamLimits::held_per_stream) or another limit of
    /// held messages.
    #[default]
    HoldBack,
    /// Discards the message. It is not acknowledged, so its send fails with `deadline_exceeded`.
    /// The stream stays open.
    Discard,
    /// Closes the stream with `unavailable` and the text "stream message discarded by slow
    /// consumer".
    Close,
}

/// An invalid service, method, topic, id or limit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The service has no name.
    #[error("the service must have a name")]
    NoService,
    /// The method has no name.
    #[error("the method must have a name")]
    NoMethod,
    /// The service's name would change the meaning of a NATS subject.
    #[error("invalid service {}: {cause}", Shortened(.service))]
    Service {
        /// The service.
        service: String,
        /// What is wrong with it.
        cause: InvalidId,
    },
    /// The client's or server's id cannot be carried by every bus.
    #[error("invalid id {}: {cause}", Shortened(.id))]
    Id {
        /// The id.
        id: String,
        /// What is wrong with it.
        cause: InvalidId,
    },
    /// A limit is out of range.
    #[error("invalid {name}: {value}; expected 1 to {}", u32::MAX)]
    Limit {
        /// The name of the limit.
        name: &'static str,
        /// Its value.
        value: usize,
    },
    /// A topic is longer than the limit.
    #[error("invalid topic {} of {method}: longer than {limit} bytes", Shortened(.topic))]
    Topic {
        /// The method.
        method: String,
        /// The parts of the topic, joined.
        topic: String,
        /// The limit on all parts together, in bytes.
        limit: usize,
    },
}

/// A name in an error message, cut off after 64 characters.
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

impl ConfigError {
    /// Checks that a limit is from 1 to 4,294,967,295.
    ///
    /// # Errors
    ///
    /// Returns [`Limit`](Self::Limit) if it is not.
    pub fn check_limit(name: &'static str, value: usize) -> Result<(), ConfigError> {
        match u32::try_from(value) {
            Ok(1..) => Ok(()),
            _ => Err(ConfigError::Limit { name, value }),
        }
    }
}
