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

/// Options of a server, each with its default.
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
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// How long a shutdown waits for the bus to confirm that nothing more will come. Default 3 s.
    /// What comes later is not accepted.
    ///
    /// Requests in flight are waited for until they expire, however long that is.
    #[must_use]
    pub fn drain_timeout(mut self, timeout: Duration) -> Self {
        self.drain_timeout = Some(timeout);
        self
    }

    /// How long after it was sent a request may expire at the latest. Default 1 h.
    #[must_use]
    pub fn horizon(mut self, horizon: Duration) -> Self {
        self.horizon = Some(horizon);
        self
    }

    /// What the server holds at most.
    #[must_use]
    pub fn limits(mut self, limits: ServerLimits) -> Self {
        self.limits = Some(limits);
        self
    }

    /// How many requests the server bids for and runs at a time, streams not counted. Default: no
    /// limit but [`ServerLimits::requests`]. One more gets no bid, so that another server takes
    /// it; on a queue-routed method, where no other server saw it, it is answered
    /// `resource_exhausted`.
    #[must_use]
    pub fn concurrency(mut self, requests: usize) -> Self {
        self.concurrency = Some(requests);
        self
    }

    common_options! {
        /// The server's id on the wire. Default, also for an empty one: drawn at random.
        ///
        /// No other server of the service may have it: a call granted to one would run on both.
        id;
        /// How long a message of a stream, or an update, may take that does not say so itself.
        /// Default 3 s. How long a request may take is up to its caller.
        timeout;
        /// How far the clients' wall clocks may be behind before their requests count as expired.
        /// Default 0.
        ///
        /// A request without a claim may then run up to this long after its caller gave up. On
        /// Redis, tell the bus of it too (`RedisOptions::skew_allowance`), lest a late queue
        /// request is handed to every server.
        skew_allowance;
        /// How many frames of a subscription may wait for the server before the newest are lost,
        /// and how many messages of a stream may wait for its handler. Default 8,192; for messages
        /// of a stream 1,024.
        channel_size;
        /// Puts an interceptor around every stream, within those that were added before.
        stream_interceptor;
        /// Tells a function what becomes of requests, frames and streams.
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
        /// It mostly runs on the server's background task, which it must not block. A panic in it
        /// is discarded.
        observer;
    }

    /// Puts an interceptor around every handler of a unary or multi method, within those that were
    /// added before.
    #[must_use]
    pub fn interceptor(mut self, interceptor: impl HandlerInterceptor) -> Self {
        self.interceptors.handlers.push(Arc::new(interceptor));
        self
    }

    /// Elects requests that this server runs at once, telling their clients so, instead of bidding
    /// for them and waiting for the grant: a call takes one round less. Default: none.
    ///
    /// The function is asked for each request of a queue-routed method whose client allows it (every client from Go's v0.7.5 on,
    /// and all of ours, do), on the server's background task, which it must not block; a panic in it skips_claim nothing. A request
    /// that was skips_claim runs even if its caller has given up meanwhile.
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

    /// Measures handlers and streams. It is an interceptor of either kind, and has its place among
    /// the others: what is added later is within what it measures.
    #[must_use]
    pub fn metrics(self, observer: impl MetricsObserver) -> Self {
        let metrics = Metrics(Arc::new(observer));
        self.interceptor(metrics.clone()).stream_interceptor(metrics)
    }

    /// Calls a function with every panic of a handler or of an interceptor around it: what was
    /// thrown is a `&str` or a `String` for most. The caller gets `internal`, and no more, in
    /// any case.
    ///
    /// ```
    /// # use psrpc::ServerOptions;
    /// let options = ServerOptions::new().on_panic(|info, thrown| {
    ///     eprintln!("{info} panicked: {:?}", thrown.downcast_ref::<&str>());
    /// });
    /// ```
    ///
    /// It runs on the handler's task. A panic in it is discarded.
    #[must_use]
    pub fn on_panic(mut self, hook: impl Fn(&CallInfo, &(dyn Any + Send)) + Send + Sync + 'static) -> Self {
        self.interceptors.panic_hooks.push(Arc::new(hook));
        self
    }

    /// Adds another set of options: what it sets replaces what is set here; interceptors and
    /// observers come after those that are here.
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
