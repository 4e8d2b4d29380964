//! The client of a service, on which generated clients stand.

mod builder;
mod in_flight;
pub(crate) mod multi;
pub(crate) mod open_stream;
pub(crate) mod options;
mod role;
pub(crate) mod subscription;
pub(crate) mod unary;

use std::future::poll_fn;
use std::sync::Arc;

use psrpc_engine::proto::Text;
use psrpc_engine::{Client as Engine, Counters, Route};

use self::options::ClientOptions;
use self::role::ClientRole;
use crate::bus::Bus;
use crate::driver::Driver;
use crate::error::Error;
use crate::interceptor::ClientInterceptors;
use crate::method::{Method, MethodKind, Routes, Service};
use crate::runtime::Runtime;

/// A client of a service. Cheap to clone; all clones are one client.
///
/// Dropping the last clone closes it, as [`close`](Self::close) does; calls keep it alive until
/// they end, and so do streams and subscriptions.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
    routes: Routes,
}

/// Closes the client when the last clone and the last call are gone.
struct Inner {
    driver: Arc<Driver<ClientRole>>,
    interceptors: ClientInterceptors,
    id: Text,
}

impl Client {
    /// A client of `service`, ready to call: its subscriptions are live.
    ///
    /// Dropping the future before it is ready closes the client again.
    ///
    /// # Errors
    ///
    /// When the id cannot be carried (`invalid_argument`), the bus refuses a subscription, or the
    /// runtime has shut down (`unavailable`).
    ///
    /// # Panics
    ///
    /// When the runtime has no timers, as a tokio without `enable_time`.
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
        let capacity = options.common.capacity();
        let role = ClientRole::new(options.common.observers.watch(), bus.monitor().is_some());
        let driver = Driver::start(engine, role, Arc::new(bus), runtime, capacity);
        let interceptors = options.interceptors;
        let client =
            Self { inner: Arc::new(Inner { driver, interceptors, id }), routes: Routes::new(service) };
        poll_fn(|cx| client.driver().with_state(|state| state.role.poll_ready(state.engine, cx))).await?;
        Ok(client)
    }

    /// Returns the route of a method on a topic, or why there is none.
    fn route(&self, kind: MethodKind, method: &'static Method, topic: &[&str]) -> RouteResult {
        self.routes.route_for(kind, method, topic)
    }

    /// Its id on the wire.
    pub fn id(&self) -> &str {
        self.inner.id.as_str()
    }

    /// The service that it calls.
    pub fn service(&self) -> &'static Service {
        self.routes.service()
    }

    /// How many calls are in flight, multi calls and openings of streams included.
    pub fn in_flight(&self) -> usize {
        self.driver().with_state(|state| state.engine.in_flight())
    }

    /// How many streams are open or being opened.
    pub fn streams(&self) -> usize {
        self.driver().with_state(|state| state.engine.streams())
    }

    /// What happened so far: frames dropped and calls failed, by reason.
    pub fn counters(&self) -> Counters {
        self.driver().with_state(|state| state.engine.counters().clone())
    }

    /// Returns whether the client can work now: `Ok`, or why not, as an error. For health checks: a
    /// client whose bus recovers works again by itself.
    ///
    /// # Errors
    ///
    /// When the bus is not connected or has stopped, when it refuses subscriptions, with its words
    /// as the cause, or when the client is closed or its runtime has shut down.
    pub fn health(&self) -> Result<(), Error> {
        self.driver().health(|engine| (engine.closed(), engine.interruption().cloned()))
    }

    /// Closes the client: its calls fail at once with "client is closed", and so do later ones; its
    /// streams and subscriptions end.
    pub fn close(&self) {
        self.driver().execute(|state, now| state.engine.close(now));
    }

    /// Closes the client, and resolves when the bus has what its servers are to know: the ends of
    /// its streams and subscriptions; or after 3 s. For a program that ends right after.
    ///
    /// Dropping the future does not undo the close.
    pub async fn shutdown(&self) {
        self.close();
        poll_fn(|cx| self.driver().with_state(|state| state.role.poll_closed(cx))).await;
    }

    pub(crate) fn interceptors(&self) -> &ClientInterceptors {
        &self.inner.interceptors
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

/// What a client found out about the route of a method.
pub(crate) type RouteResult = Result<Route, Error>;
