//! The options of a server.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use psrpc_engine::proto::Metadata;
use psrpc_engine::{ServerConfig, ServerLimits};

use crate::info::CallInfo;
use crate::interceptor::{HandlerInterceptor, ServerInterceptors};
use crate::middleware::{Metrics, MetricsObserver};
use crate::options::{CommonOptions, common_options, configure};

/// Options of a server.
#[derive(Clone, Debug, Default)]
pub struct ServerOptions {
    pub(crate) common: CommonOptions,
    drain_timeout: Option<Duration>,
    horizon: Option<Duration>,
    limits: Option<ServerLimits>,
    concurrency: Option<usize>,
    pub(crate) interceptors: ServerInterceptors,
}

impl ServerOptions {
    /// Returns the default options.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets how long a shutdown waits for the bus to confirm the end of the subscriptions. Requests
    /// that arrive later are not accepted. Default: 3 s.
    ///
    /// This does not limit the wait for requests in flight, which lasts until they expire.
    #[must_use]
    pub fn drain_timeout(mut self, timeout: Duration) -> Self {
        self.drain_timeout = Some(timeout);
        self
    }

    /// Sets the longest lifetime of a request, counted from when it was sent. A later expiry is
    /// moved to this limit: the handler is stopped there, even if its caller waits longer. A
    /// request whose send time is further in the future than this is dropped. Default: 5 min.
    ///
    /// Raise it if calls take longer. Lower it to the longest timeout of your callers if peers on
    /// the bus are not trusted: a flood of forged requests can keep the server full for up to twice
    /// this long after it stops.
    #[must_use]
    pub fn horizon(mut self, horizon: Duration) -> Self {
        self.horizon = Some(horizon);
        self
    }

    /// Limits the resources that the server holds.
    #[must_use]
    pub fn limits(mut self, limits: ServerLimits) -> Self {
        self.limits = Some(limits);
        self
    }

    /// Limits the number of requests that the server bids for and runs at a time, not counting
    /// streams. Default: no limit other than [`ServerLimits::requests`].
    ///
    /// At the limit the server does not bid, so that another server takes the request. No other
    /// server sees a request of a queue-routed or single-server method, so the server answers it
    /// with `resource_exhausted`. To a multi call it does not respond.
    #[must_use]
    pub fn concurrency(mut self, requests: usize) -> Self {
        self.concurrency = Some(requests);
        self
    }

    common_options! {
        /// Sets the server's id on the wire. Default: a random id, also if `id` is empty.
        ///
        /// No two servers of a service may share an id, since a call granted to one would run on
        /// both.
        id;
        /// Sets the timeout of stream messages and updates that do not set their own. Default: 3 s.
        /// The timeout of a request is set by its caller.
        timeout;
        /// Sets how far the clients' wall clocks may lag before requests from them count as
        /// expired. Default: 0.
        ///
        /// A request without a claim may then run up to this long after its caller gave up. On
        /// Redis, set `RedisOptions::skew_allowance` to the same value. Otherwise every server may
        /// receive a late queue request.
        skew_allowance;
        /// Sets how many frames of each subscription to the bus are queued for the server before
        /// the newest are lost. At least 1. Default: 8,192.
        queued_frames;
        /// Adds an interceptor around every stream. It runs inside those added before.
        stream_interceptor;
        /// Adds an observer of requests, frames and streams.
        ///
        /// ```
        /// # use psrpc::ServerOptions;
        /// use psrpc::middleware::Observation;
        ///
        /// let options = ServerOptions::new().observer(|observation| {
        ///     if let Observation::Bid { info, outcome, waited, .. } = observation {
        ///         println!("{info}: {outcome:?} after {waited:?}");
        ///     }
        /// });
        /// ```
        ///
        /// It usually runs on the server's background task, and must not block. A panic in it is
        /// caught and logged.
        observer;
    }

    /// Adds an interceptor around every handler of a unary or multi method. It runs inside those
    /// added before.
    #[must_use]
    pub fn interceptor(mut self, interceptor: impl HandlerInterceptor) -> Self {
        self.interceptors.handlers.push(Arc::new(interceptor));
        self
    }

    /// Sets which requests the server runs at once, without waiting for a grant. The server
    /// announces that it runs the request instead of bidding, which saves one round trip. Default:
    /// none.
    ///
    /// The function is called for each request of a queue-routed method whose client allows this
    /// mode, as all Rust clients and Go clients from v0.7.5 on do. It runs on the server's
    /// background task, and must not block. If it panics, the server bids as usual. A request in
    /// this mode runs even if its caller has given up in the meantime.
    ///
    /// ```
    /// # use psrpc::ServerOptions;
    /// let options = ServerOptions::new().skip_claim(|info, _| info.method() == "Fit");
    /// ```
    #[must_use]
    pub fn skip_claim(
        mut self,
        skip_claim: impl Fn(&CallInfo, &Metadata) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.interceptors.skip_claim = Some(Arc::new(skip_claim));
        self
    }

    /// Reports measurements of handlers and streams to `observer`. This adds an interceptor of each
    /// kind; interceptors added later run inside the measurement.
    #[must_use]
    pub fn metrics(self, observer: impl MetricsObserver) -> Self {
        let metrics = Metrics(Arc::new(observer));
        self.interceptor(metrics.clone()).stream_interceptor(metrics)
    }

    /// Adds a hook that is called with the payload of every panic of a handler or of an interceptor
    /// around it. The payload is usually a `&str` or a `String`. The caller always gets a plain
    /// `internal` error.
    ///
    /// ```
    /// # use psrpc::ServerOptions;
    /// let options = ServerOptions::new().on_panic(|info, thrown| {
    ///     eprintln!("{info} panicked: {:?}", thrown.downcast_ref::<&str>());
    /// });
    /// ```
    ///
    /// The hook runs on the handler's task. A panic in it is ignored.
    #[must_use]
    pub fn on_panic(mut self, hook: impl Fn(&CallInfo, &(dyn Any + Send)) + Send + Sync + 'static) -> Self {
        self.interceptors.panic_hooks.push(Arc::new(hook));
        self
    }

    /// Merges another set of options into this one. Its values take precedence; its interceptors
    /// and observers come after those in this set.
    #[must_use]
    pub fn with(mut self, bundle: Self) -> Self {
        self.drain_timeout = bundle.drain_timeout.or(self.drain_timeout);
        self.horizon = bundle.horizon.or(self.horizon);
        self.limits = bundle.limits.or(self.limits);
        self.concurrency = bundle.concurrency.or(self.concurrency);
        self.interceptors.append(bundle.interceptors);
        self.common.append(bundle.common);
        self
    }

    pub(super) fn config(&self, service: &str) -> ServerConfig {
        let mut config = ServerConfig::new(service);
        config.drain_timeout = self.drain_timeout.unwrap_or(config.drain_timeout);
        config.horizon = self.horizon.unwrap_or(config.horizon);
        config.concurrency = self.concurrency.or(config.concurrency);
        config.limits = self.limits.unwrap_or(config.limits);
        configure!(self.common, config);
        config
    }
}
