//! The options of a client.

use std::sync::Arc;
use std::time::Duration;

use psrpc_engine::{ClientConfig, ClientLimits};

use crate::error::Error;
use crate::info::CallInfo;
use crate::interceptor::{CallInterceptor, ClientInterceptors, MultiCallInterceptor};
use crate::message::AnyMessage;
use crate::method::{MethodKind, Service};
use crate::middleware::{Metrics, MetricsObserver};
use crate::options::{CommonOptions, common_options, configure};

/// Options of a client, each with its default.
#[derive(Clone, Debug, Default)]
pub struct ClientOptions {
    pub(crate) common: CommonOptions,
    selection_timeout: Option<Duration>,
    limits: Option<ClientLimits>,
    pub(crate) interceptors: ClientInterceptors,
}

impl ClientOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// How long a call waits for bids that does not say so itself. Default 1 s.
    #[must_use]
    pub fn selection_timeout(mut self, timeout: Duration) -> Self {
        self.selection_timeout = Some(timeout);
        self
    }

    /// What the client holds at most.
    #[must_use]
    pub fn limits(mut self, limits: ClientLimits) -> Self {
        self.limits = Some(limits);
        self
    }

    common_options! {
        /// The client's id on the wire. Default, also for an empty one: drawn at random.
        ///
        /// No other client of the service may have it: each would get the other's bids and
        /// responses.
        id;
        /// How long a call may take that does not say so itself. Default 3 s.
        timeout;
        /// How far the servers' wall clocks may be behind before the messages of their streams
        /// count as expired. Default 0.
        skew_allowance;
        /// How many frames of a subscription may wait for the client before the newest are lost;
        /// and how many updates of a subscription, or messages of a stream, may wait for their
        /// consumer, of which there is the stated number at most. Default 8,192; for messages of a
        /// stream 1,024.
        channel_size;
        /// Puts an interceptor around every stream, within those that were added before.
        stream_interceptor;
        /// Tells a function of frames that are dropped, of streams that end, and of gaps.
        ///
        /// It mostly runs on the client's background task, which it must not block. A panic in it
        /// is discarded.
        observer;
    }

    /// Puts an interceptor around every unary call, within those that were added before.
    #[must_use]
    pub fn interceptor(mut self, interceptor: impl CallInterceptor) -> Self {
        self.interceptors.calls.push(Arc::new(interceptor));
        self
    }

    /// Calls a function with every request, as soon as the call is made: when it is first polled,
    /// before any interceptor. Several are called in the order in which they were added.
    ///
    /// It runs on the caller's task, which it must not block and to which a panic in it goes.
    #[must_use]
    pub fn request_hook(mut self, hook: impl Fn(&CallInfo, &AnyMessage) + Send + Sync + 'static) -> Self {
        self.interceptors.hooks.requests.push(Arc::new(hook));
        self
    }

    /// Calls a function with every request and what came of it, just before the caller gets that:
    /// after all interceptors. Several are called in the order in which they were added. A call
    /// that is dropped has no response.
    ///
    /// It runs on the caller's task, which it must not block and to which a panic in it goes.
    #[must_use]
    pub fn response_hook(
        mut self,
        hook: impl Fn(&CallInfo, &AnyMessage, Result<&AnyMessage, &Error>) + Send + Sync + 'static,
    ) -> Self {
        self.interceptors.hooks.responses.push(Arc::new(hook));
        self
    }

    /// Puts an interceptor around every multi call, within those that were added before.
    #[must_use]
    pub fn multi_interceptor(mut self, interceptor: impl MultiCallInterceptor) -> Self {
        self.interceptors.multi_calls.push(Arc::new(interceptor));
        self
    }

    /// Measures calls, multi calls and streams. It is an interceptor of each kind, and has its
    /// place among the others: what is added later is within what it measures.
    #[must_use]
    pub fn metrics(self, observer: impl MetricsObserver) -> Self {
        let metrics = Metrics(Arc::new(observer));
        self.interceptor(metrics.clone()).multi_interceptor(metrics.clone()).stream_interceptor(metrics)
    }

    /// Adds another set of options: what it sets replaces what is set here; interceptors, hooks and
    /// observers come after those that are here.
    #[must_use]
    pub fn with(mut self, bundle: Self) -> Self {
        self.selection_timeout = bundle.selection_timeout.or(self.selection_timeout);
        self.limits = bundle.limits.or(self.limits);
        self.interceptors.append(bundle.interceptors);
        self.common.append(bundle.common);
        self
    }

    pub(super) fn config(&self, service: &Service) -> ClientConfig {
        let mut config = ClientConfig::new(service.name);
        config.opens_streams = service.methods.iter().any(|method| method.kind == MethodKind::Stream);
        config.affinity_timeout = self.selection_timeout.unwrap_or(config.affinity_timeout);
        config.limits = self.limits.unwrap_or(config.limits);
        if let Some(size) = self.common.channel_size {
            config.limits.updates_per_subscription = size.max(1);
        }
        configure!(self.common, config);
        config
    }
}
