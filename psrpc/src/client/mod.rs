//! The untyped client of a service, on which generated clients are built.

mod builder;
mod in_flight;
pub(crate) mod multi;
pub(crate) mod open_stream;
pub(crate) mod options;
mod role;
pub(crate) mod subscription;
pub(crate) mod unary;
pub(crate) mod within;

use std::future::poll_fn;
use std::sync::Arc;

use psrpc_engine::proto::Text;
use psrpc_engine::{Client as Engine, Counters, Route};

use self::options::ClientOptions;
use self::role::ClientRole;
use self::within::Scope;
use crate::bus::Bus;
use crate::driver::Driver;
use crate::error::Error;
use crate::interceptor::{CallOptions, ClientInterceptors};
use crate::method::{Method, MethodKind, Routes, Service};
use crate::runtime::Runtime;

/// A client of a service. Cheap to clone; all clones are one client.
///
/// Dropping the last clone closes the client, as [`close`](Self::close) does. Calls in flight,
/// streams and subscriptions keep it alive until they end.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
    routes: Routes,
    /// The handler that calls are made within.
    scope: Option<Scope>,
}

/// The shared part of a client. Dropping it closes the client.
struct Inner {
    driver: Arc<Driver<ClientRole>>,
    interceptors: ClientInterceptors,
    propagated_metadata: Vec<Text>,
    id: Text,
}

impl Client {
    /// Creates a client of `service`, and waits until its subscriptions are live.
    ///
    /// Dropping the future closes the client.
    ///
    /// # Errors
    ///
    /// Returns `invalid_argument` if the client's id is not valid on the wire or a limit is out of
    /// range, and `unavailable` if the bus refuses a subscription or the runtime has shut down.
    ///
    /// # Panics
    ///
    /// Panics if the runtime has no timers, such as a tokio runtime without `enable_time`.
    pub async fn new(
        bus: impl Bus,
        runtime: impl Runtime,
        service: &'static Service,
        options: ClientOptions,
    ) -> Result<Self, Error> {
        let runtime: Arc<dyn Runtime> = Arc::new(runtime);
        let mut config = options.config(service);
        config.tells_cancellation = bus.is_in_process();
        let engine = Engine::new(config, runtime.seed())?;
        let id = engine.id().clone();
        let capacity = options.common.capacity()?;
        let role = ClientRole::new(options.common.observers.watch(), bus.monitor().is_some());
        let driver = Driver::start(engine, role, Arc::new(bus), runtime, capacity);
        let ClientOptions { interceptors, propagated_metadata, .. } = options;
        let inner = Arc::new(Inner { driver, interceptors, propagated_metadata, id });
        let client = Self { inner, routes: Routes::new(service), scope: None };
        poll_fn(|cx| client.driver().with_state(|state| state.role.poll_ready(state.engine, cx))).await?;
        Ok(client)
    }

    /// Returns the route of a method on a topic, or an error if the method or topic is invalid.
    fn route(&self, kind: MethodKind, method: &'static Method, topic: &[&str]) -> RouteResult {
        self.routes.route_for(kind, method, topic)
    }

    /// Returns the client's id on the wire.
    pub fn id(&self) -> &str {
        self.inner.id.as_str()
    }

    /// Returns the service that this client calls.
    pub fn service(&self) -> &'static Service {
        self.routes.service()
    }

    /// Returns the number of calls in flight, including multi calls and streams that are being
    /// opened.
    pub fn in_flight(&self) -> usize {
        self.driver().with_state(|state| state.engine.in_flight())
    }

    /// Returns the number of streams that are open or being opened.
    pub fn streams(&self) -> usize {
        self.driver().with_state(|state| state.engine.streams())
    }

    /// Returns the number of stream messages that are remembered until they expire, so that no
    /// duplicate is delivered. [`ClientLimits`](crate::ClientLimits) bounds it.
    pub fn remembered(&self) -> usize {
        self.driver().with_state(|state| state.engine.remembered())
    }

    /// Returns the numbers of dropped frames and failed calls so far, by reason.
    pub fn counters(&self) -> Counters {
        self.driver().with_state(|state| state.engine.counters().clone())
    }

    /// Returns `Ok` if the client can make calls now, and otherwise an error that says why not.
    /// Intended for health checks. A client whose bus reconnects recovers by itself.
    ///
    /// # Errors
    ///
    /// Returns an error if the bus is disconnected or stopped, if the bus refuses a subscription
    /// (with the bus's error as the cause), if the client is closed, or if its runtime has shut
    /// down.
    pub fn health(&self) -> Result<(), Error> {
        self.driver().health(|engine| (engine.closed(), engine.interruption().cloned()))
    }

    /// Closes the client. Calls in flight and later calls fail at once with "client is closed".
    /// Streams and subscriptions end.
    pub fn close(&self) {
        self.driver().execute(|state, now| state.engine.close(now));
    }

    /// Closes the client, and waits until the bus has accepted the final frames of its streams and
    /// subscriptions, for at most 3 s. Call it before the program exits.
    ///
    /// Dropping the future does not undo the close.
    pub async fn shutdown(&self) {
        self.close();
        poll_fn(|cx| self.driver().with_state(|state| state.role.poll_closed(cx))).await;
    }

    pub(crate) fn interceptors(&self) -> &ClientInterceptors {
        &self.inner.interceptors
    }

    /// Returns the names of the metadata entries that are passed on to calls within a handler.
    fn propagated_metadata(&self) -> &[Text] {
        &self.inner.propagated_metadata
    }

    /// Returns the options of a new call.
    fn call_options(&self) -> CallOptions {
        CallOptions { scope: self.scope.clone(), ..CallOptions::new() }
    }

    pub(crate) fn driver(&self) -> &Arc<Driver<ClientRole>> {
        &self.inner.driver
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("service", &self.service().name).field("id", &self.id()).finish()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.driver.execute(|state, now| state.engine.close(now));
    }
}

/// The route of a method, or the reason why there is none.
pub(crate) type RouteResult = Result<Route, Error>;
