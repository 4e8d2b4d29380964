//! The options of a server.

use std::time::Duration;

use psrpc_engine::proto::Text;
use psrpc_engine::{ServerConfig, ServerLimits, SlowConsumer};

use crate::client::CHANNEL_SIZE;
use crate::interceptor::AroundHandlers;
use crate::middleware::Observers;

/// Options of a server, each with its default.
#[derive(Clone, Debug, Default)]
pub struct ServerOptions {
    id: Option<Text>,
    drain_timeout: Option<Duration>,
    skew_allowance: Option<Duration>,
    horizon: Option<Duration>,
    channel_size: Option<usize>,
    limits: Option<ServerLimits>,
    timeout: Option<Duration>,
    concurrency: Option<usize>,
    stream_idle_timeout: Option<Duration>,
    slow_consumer: Option<SlowConsumer>,
    pub(crate) around: AroundHandlers,
    pub(crate) observers: Observers,
}

impl ServerOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// The server's id on the wire. Default, also for an empty one: drawn at random.
    ///
    /// No other server of the service may have it: a call granted to one would run on both.
    #[must_use]
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into().into());
        self
    }

    /// How long a shutdown waits for the bus to confirm that nothing more will come. Default 3 s. What comes later is not
    /// accepted.
    ///
    /// Requests in flight are waited for until they expire, however long that is.
    #[must_use]
    pub fn drain_timeout(mut self, timeout: Duration) -> Self {
        self.drain_timeout = Some(timeout);
        self
    }

    /// How far the clients' wall clocks may be behind before their requests count as expired. Default 0.
    ///
    /// A request without a claim may then run up to this long after its caller gave up. On Redis, tell the bus of it too
    /// (`RedisOptions::skew_allowance`), lest a late queue request is handed to every server.
    #[must_use]
    pub fn skew_allowance(mut self, allowance: Duration) -> Self {
        self.skew_allowance = Some(allowance);
        self
    }

    /// How long after it was sent a request may expire at the latest. Default 1 h.
    #[must_use]
    pub fn horizon(mut self, horizon: Duration) -> Self {
        self.horizon = Some(horizon);
        self
    }

    /// How many frames of a subscription may wait for the server before the newest are lost, and how many messages of a stream
    /// may wait for its handler. Default 8,192; for messages of a stream 1,024.
    #[must_use]
    pub fn channel_size(mut self, frames: usize) -> Self {
        self.channel_size = Some(frames);
        self
    }

    /// What the server holds at most.
    #[must_use]
    pub fn limits(mut self, limits: ServerLimits) -> Self {
        self.limits = Some(limits);
        self
    }

    /// How long a message of a stream, or an update, may take that does not say so itself. Default 3 s. How long a request may
    /// take is up to its caller.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// How many requests the server bids for and runs at a time, streams not counted. Default: no limit but
    /// [`ServerLimits::requests`]. One more gets no bid, so that another server takes it; on a queue-routed method, where no other
    /// server saw it, it is answered `resource_exhausted`.
    #[must_use]
    pub fn concurrency(mut self, requests: usize) -> Self {
        self.concurrency = Some(requests);
        self
    }

    /// How long nothing may be heard on a stream before it ends. Default: for ever, since the protocol has no keepalive and
    /// a peer may be silent on purpose.
    #[must_use]
    pub fn stream_idle_timeout(mut self, timeout: Duration) -> Self {
        self.stream_idle_timeout = Some(timeout);
        self
    }

    /// What happens to a message of a stream for which its handler has no room. Default: it is discarded.
    #[must_use]
    pub fn slow_consumer(mut self, policy: SlowConsumer) -> Self {
        self.slow_consumer = Some(policy);
        self
    }

    /// Adds another set of options: what it sets replaces what is set here; interceptors and observers come after those
    /// that are here.
    #[must_use]
    pub fn with(mut self, bundle: Self) -> Self {
        self.id = bundle.id.or(self.id);
        self.drain_timeout = bundle.drain_timeout.or(self.drain_timeout);
        self.skew_allowance = bundle.skew_allowance.or(self.skew_allowance);
        self.horizon = bundle.horizon.or(self.horizon);
        self.channel_size = bundle.channel_size.or(self.channel_size);
        self.limits = bundle.limits.or(self.limits);
        self.timeout = bundle.timeout.or(self.timeout);
        self.concurrency = bundle.concurrency.or(self.concurrency);
        self.stream_idle_timeout = bundle.stream_idle_timeout.or(self.stream_idle_timeout);
        self.slow_consumer = bundle.slow_consumer.or(self.slow_consumer);
        self.around.append(bundle.around);
        self.observers.append(bundle.observers);
        self
    }

    pub(super) fn capacity(&self) -> usize {
        self.channel_size.unwrap_or(CHANNEL_SIZE)
    }

    pub(super) fn config(&self, service: &str) -> ServerConfig {
        let mut config = ServerConfig::new(service);
        config.id = self.id.clone().unwrap_or(config.id);
        config.drain_timeout = self.drain_timeout.unwrap_or(config.drain_timeout);
        config.skew_allowance = self.skew_allowance.unwrap_or(config.skew_allowance);
        config.horizon = self.horizon.unwrap_or(config.horizon);
        config.timeout = self.timeout.unwrap_or(config.timeout);
        config.concurrency = self.concurrency.or(config.concurrency);
        config.streams.idle_timeout = self.stream_idle_timeout.or(config.streams.idle_timeout);
        config.streams.slow_consumer = self.slow_consumer.unwrap_or(config.streams.slow_consumer);
        config.limits = self.limits.unwrap_or(config.limits);
        if let Some(size) = self.channel_size {
            config.limits.streams.unread_per_stream = size.max(1);
        }
        config
    }
}
