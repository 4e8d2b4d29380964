//! The options of a client.

use std::time::Duration;

use psrpc_engine::proto::Text;
use psrpc_engine::{ClientConfig, ClientLimits, SlowConsumer};

use crate::interceptor::AroundCalls;
use crate::method::{MethodKind, Service};
use crate::middleware::Observers;

/// Options of a client, each with its default.
#[derive(Clone, Debug, Default)]
pub struct ClientOptions {
    id: Option<Text>,
    timeout: Option<Duration>,
    selection_timeout: Option<Duration>,
    channel_size: Option<usize>,
    limits: Option<ClientLimits>,
    stream_idle_timeout: Option<Duration>,
    slow_consumer: Option<SlowConsumer>,
    skew_allowance: Option<Duration>,
    pub(crate) around: AroundCalls,
    pub(crate) observers: Observers,
}

/// The default room of a subscription, in frames.
pub(crate) const CHANNEL_SIZE: usize = 8192;

impl ClientOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// The client's id on the wire. Default, also for an empty one: drawn at random.
    ///
    /// No other client of the service may have it: each would get the other's bids and responses.
    #[must_use]
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into().into());
        self
    }

    /// How long a call may take that does not say so itself. Default 3 s.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// How long a call waits for bids that does not say so itself. Default 1 s.
    #[must_use]
    pub fn selection_timeout(mut self, timeout: Duration) -> Self {
        self.selection_timeout = Some(timeout);
        self
    }

    /// How many frames of a subscription may wait for the client before the newest are lost; and how many updates of a
    /// subscription, or messages of a stream, may wait for their consumer, of which there is the stated number at most.
    /// Default 8,192; for messages of a stream 1,024.
    #[must_use]
    pub fn channel_size(mut self, frames: usize) -> Self {
        self.channel_size = Some(frames);
        self
    }

    /// What the client holds at most.
    #[must_use]
    pub fn limits(mut self, limits: ClientLimits) -> Self {
        self.limits = Some(limits);
        self
    }

    /// How long nothing may be heard on a stream before it ends. Default: for ever, since the protocol has no keepalive and
    /// a peer may be silent on purpose.
    #[must_use]
    pub fn stream_idle_timeout(mut self, timeout: Duration) -> Self {
        self.stream_idle_timeout = Some(timeout);
        self
    }

    /// What happens to a message of a stream for which its consumer has no room. Default: it is discarded.
    #[must_use]
    pub fn slow_consumer(mut self, policy: SlowConsumer) -> Self {
        self.slow_consumer = Some(policy);
        self
    }

    /// How far the servers' wall clocks may be behind before the messages of their streams count as expired. Default 0.
    #[must_use]
    pub fn skew_allowance(mut self, allowance: Duration) -> Self {
        self.skew_allowance = Some(allowance);
        self
    }

    /// Adds another set of options: what it sets replaces what is set here; interceptors, hooks and observers come after
    /// those that are here.
    #[must_use]
    pub fn with(mut self, bundle: Self) -> Self {
        self.id = bundle.id.or(self.id);
        self.timeout = bundle.timeout.or(self.timeout);
        self.selection_timeout = bundle.selection_timeout.or(self.selection_timeout);
        self.channel_size = bundle.channel_size.or(self.channel_size);
        self.limits = bundle.limits.or(self.limits);
        self.stream_idle_timeout = bundle.stream_idle_timeout.or(self.stream_idle_timeout);
        self.slow_consumer = bundle.slow_consumer.or(self.slow_consumer);
        self.skew_allowance = bundle.skew_allowance.or(self.skew_allowance);
        self.around.append(bundle.around);
        self.observers.append(bundle.observers);
        self
    }

    pub(super) fn capacity(&self) -> usize {
        self.channel_size.unwrap_or(CHANNEL_SIZE)
    }

    pub(super) fn config(&self, service: &Service) -> ClientConfig {
        let mut config = ClientConfig::new(service.name);
        config.opens_streams = service.methods.iter().any(|method| method.kind == MethodKind::Stream);
        config.id = self.id.clone().unwrap_or(config.id);
        config.timeout = self.timeout.unwrap_or(config.timeout);
        config.affinity_timeout = self.selection_timeout.unwrap_or(config.affinity_timeout);
        config.skew_allowance = self.skew_allowance.unwrap_or(config.skew_allowance);
        config.streams.idle_timeout = self.stream_idle_timeout.or(config.streams.idle_timeout);
        config.streams.slow_consumer = self.slow_consumer.unwrap_or(config.streams.slow_consumer);
        config.limits = self.limits.unwrap_or(config.limits);
        if let Some(size) = self.channel_size {
            config.limits.updates_per_subscription = size.max(1);
            config.limits.streams.unread_per_stream = size.max(1);
        }
        config
    }
}
