//! The options of a client.

use std::sync::Arc;
use std::time::Duration;

use psrpc_engine::proto::Text;
use psrpc_engine::{ClientConfig, ClientLimits};

use crate::error::Error;
use crate::info::CallInfo;
use crate::interceptor::{CallInterceptor, ClientInterceptors, MultiCallInterceptor};
use crate::message::AnyMessage;
use crate::method::{MethodKind, Service};
use crate::middleware::{Metrics, MetricsObserver};
use crate::options::{CommonOptions, common_options, configure};

/// Options of a client.
#[derive(Clone, Debug, Default)]
pub struct ClientOptions {
    pub(crate) common: CommonOptions,
    selection_timeout: Option<Duration>,
    limits: Option<ClientLimits>,
    updates_per_subscription: Option<usize>,
    pub(super) propagated_metadata: Vec<Text>,
    pub(crate) interceptors: ClientInterceptors,
}

impl ClientOptions {
    /// Returns the default options.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets how long a call waits for bids, unless it sets
    /// [`Selection::affinity_timeout`](crate::Selection::affinity_timeout). Default: 1 s.
    #[must_use]
    pub fn selection_timeout(mut self, timeout: Duration) -> Self {
        self.selection_timeout = Some(timeout);
        self
    }

    /// Limits the resources that the client holds.
    #[must_use]
    pub fn limits(mut self, limits: ClientLimits) -> Self {
        self.limits = Some(limits);
        self
    }

    /// Sets how many updates of a subscription are queued for their consumer. Further updates are
    /// lost, and the subscription yields an error in their place. At least 1; takes precedence over
    /// [`limits`](Self::limits). Default: 8,192.
    #[must_use]
    pub fn updates_per_subscription(mut self, updates: usize) -> Self {
        self.updates_per_subscription = Some(updates);
        self
    }

    /// Adds a metadata entry that a call [within](crate::Call::within) a handler passes on from the
    /// handler's request. Default: those of the W3C trace context, which are always passed on.
    #[must_use]
    pub fn propagate_metadata(mut self, name: impl Into<Text>) -> Self {
        self.propagated_metadata.push(name.into());
        self
    }

    common_options! {
        /// Sets the client's id on the wire. Default: a random id, also if `id` is empty.
        ///
        /// No two clients of a service may share an id, since each would receive the other's bids
        /// and responses.
        id;
        /// Sets the timeout of calls that do not set their own. Default: 3 s.
        timeout;
        /// Sets how far the servers' wall clocks may lag before stream messages from them count as
        /// expired. Default: 0.
        skew_allowance;
        /// Sets how many frames of each subscription to the bus are queued for the client before
        /// the newest are lost. At least 1. Default: 8,192.
        queued_frames;
        /// Adds an interceptor around every stream. It runs inside those added before.
        stream_interceptor;
        /// Adds an observer of dropped frames, ended streams, gaps and the bus connection.
        ///
        /// It usually runs on the client's background task, and must not block. A panic in it is
        /// caught and logged.
        observer;
    }

    /// Adds an interceptor around every unary call. It runs inside those added before.
    #[must_use]
    pub fn interceptor(mut self, interceptor: impl CallInterceptor) -> Self {
        self.interceptors.calls.push(Arc::new(interceptor));
        self
    }

    /// Adds a hook that is called with every request when the call is first polled, before any
    /// interceptor. Hooks run in the order in which they were added.
    ///
    /// A hook runs on the caller's task and must not block. A panic in it propagates to the caller.
    #[must_use]
    pub fn request_hook(mut self, hook: impl Fn(&CallInfo, &AnyMessage) + Send + Sync + 'static) -> Self {
        self.interceptors.hooks.requests.push(Arc::new(hook));
        self
    }

    /// Adds a hook that is called with every request and its result, after all interceptors and
    /// just before the caller gets the result. Hooks run in the order in which they were added.
    /// They are not called for a call that is dropped, or that ends with the
    /// [handler](crate::Call::within) that made it.
    ///
    /// A hook runs on the caller's task and must not block. A panic in it propagates to the caller.
    #[must_use]
    pub fn response_hook(
        mut self,
        hook: impl Fn(&CallInfo, &AnyMessage, Result<&AnyMessage, &Error>) + Send + Sync + 'static,
    ) -> Self {
        self.interceptors.hooks.responses.push(Arc::new(hook));
        self
    }

    /// Adds an interceptor around every multi call. It runs inside those added before.
    #[must_use]
    pub fn multi_interceptor(mut self, interceptor: impl MultiCallInterceptor) -> Self {
        self.interceptors.multi_calls.push(Arc::new(interceptor));
        self
    }

    /// Reports measurements of calls, multi calls and streams to `observer`. This adds an
    /// interceptor of each kind; interceptors added later run inside the measurement.
    #[must_use]
    pub fn metrics(self, observer: impl MetricsObserver) -> Self {
        let metrics = Metrics(Arc::new(observer));
        self.interceptor(metrics.clone()).multi_interceptor(metrics.clone()).stream_interceptor(metrics)
    }

    /// Merges another set of options into this one. Its values take precedence; its interceptors,
    /// hooks and observers come after those in this set.
    #[must_use]
    pub fn with(mut self, bundle: Self) -> Self {
        self.selection_timeout = bundle.selection_timeout.or(self.selection_timeout);
        self.limits = bundle.limits.or(self.limits);
        self.updates_per_subscription = bundle.updates_per_subscription.or(self.updates_per_subscription);
        self.propagated_metadata.extend(bundle.propagated_metadata);
        self.interceptors.append(bundle.interceptors);
        self.common.append(bundle.common);
        self
    }

    pub(super) fn config(&self, service: &Service) -> ClientConfig {
        let mut config = ClientConfig::new(service.name);
        config.opens_streams = service.methods.iter().any(|method| method.kind == MethodKind::Stream);
        config.affinity_timeout = self.selection_timeout.unwrap_or(config.affinity_timeout);
        config.limits = self.limits.unwrap_or(config.limits);
        if let Some(updates) = self.updates_per_subscription {
            config.limits.updates_per_subscription = updates;
        }
        configure!(self.common, config);
        config
    }
}
