//! The options of a client.

use std::sync::Arc;
use std::time::Duration;

use psrpc_engine::proto::Text;
use psrpc_engine::{ClientConfig, ClientLimits, SlowConsumer};

use crate::driver::CHANNEL_SIZE;
use crate::error::Error;
use crate::info::CallInfo;
use crate::interceptor::{AroundCalls, CallInterceptor, MultiCallInterceptor, StreamInterceptor};
use crate::message::AnyMessage;
use crate::method::{MethodKind, Service};
use crate::middleware::{Metrics, MetricsObserver, Observation, Observers};

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

    /// Puts an interceptor around every unary call, within those that were added before.
    #[must_use]
    pub fn interceptor(mut self, interceptor: impl CallInterceptor) -> Self {
        self.around.interceptors.push(Arc::new(interceptor));
        self
    }

    /// Calls a function with every request, as soon as the call is made: when it is first polled, before any interceptor.
    /// Several are called in the order in which they were added.
    ///
    /// It runs on the caller's task, which it must not block and to which a panic in it goes.
    #[must_use]
    pub fn request_hook(mut self, hook: impl Fn(&CallInfo, &AnyMessage) + Send + Sync + 'static) -> Self {
        self.around.hooks.requests.push(Arc::new(hook));
        self
    }

    /// Calls a function with every request and what came of it, just before the caller gets that: after all interceptors.
    /// Several are called in the order in which they were added. A call that is dropped has no response.
    ///
    /// It runs on the caller's task, which it must not block and to which a panic in it goes.
    #[must_use]
    pub fn response_hook(
        mut self,
        hook: impl Fn(&CallInfo, &AnyMessage, Result<&AnyMessage, &Error>) + Send + Sync + 'static,
    ) -> Self {
        self.around.hooks.responses.push(Arc::new(hook));
        self
    }

    /// Puts an interceptor around every multi call, within those that were added before.
    #[must_use]
    pub fn multi_interceptor(mut self, interceptor: impl MultiCallInterceptor) -> Self {
        self.around.multi_interceptors.push(Arc::new(interceptor));
        self
    }

    /// Puts an interceptor around every stream, within those that were added before.
    #[must_use]
    pub fn stream_interceptor(mut self, interceptor: impl StreamInterceptor) -> Self {
        self.around.streams.push(Arc::new(interceptor));
        self
    }

    /// Measures calls, multi calls and streams. It is an interceptor of each kind, and has its place among the others: what is
    /// added later is within what it measures.
    #[must_use]
    pub fn metrics(self, observer: impl MetricsObserver) -> Self {
        let metrics = Metrics(Arc::new(observer));
        self.interceptor(metrics.clone()).multi_interceptor(metrics.clone()).stream_interceptor(metrics)
    }

    /// Tells a function of frames that are dropped, of streams that end, and of gaps.
    ///
    /// It mostly runs on the client's background task, which it must not block. A panic in it is discarded.
    #[must_use]
    pub fn observer(mut self, observer: impl Fn(&Observation) + Send + Sync + 'static) -> Self {
        self.observers.push(Arc::new(observer));
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
