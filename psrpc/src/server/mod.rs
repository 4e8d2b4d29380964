//! The server of a service, on which generated servers stand.

pub(crate) mod handler;
mod handlers;
mod options;
mod publish;
mod role;
mod single_server;
mod updates;

use std::future::poll_fn;
use std::sync::{Arc, OnceLock};

use prost::Message;
use psrpc_engine::proto::{ErrorCode, Text};
use psrpc_engine::{Counters, RegisterError, Route, Server as Engine};

pub use self::handlers::Handlers;
pub use self::options::ServerOptions;
pub use self::publish::Publish;
use self::role::ServerRole;
use self::single_server::SingleServerGuard;
use crate::bus::Bus;
use crate::driver::Driver;
use crate::error::Error;
use crate::method::{Method, MethodKind, Routes, Service};
use crate::runtime::Runtime;

/// A server of a service. Cheap to clone; all clones are one server.
///
/// Dropping the last clone shuts it down in the background, as [`shutdown`](Self::shutdown) does.
#[derive(Clone)]
pub struct Server {
    inner: Arc<Inner>,
    routes: Routes,
}

/// Shuts the server down when the last clone is gone.
struct Inner {
    driver: Arc<Driver<ServerRole>>,
    id: Text,
}

impl Server {
    /// A server with these handlers. It serves nothing until methods are
    /// [registered](Self::register).
    ///
    /// # Errors
    ///
    /// When the id cannot be carried (`invalid_argument`).
    ///
    /// # Panics
    ///
    /// When the runtime has no timers, as a tokio without `enable_time`.
    pub fn new<S>(
        bus: impl Bus,
        runtime: impl Runtime,
        handlers: Handlers<S>,
        options: ServerOptions,
    ) -> Result<Self, Error> {
        let runtime: Arc<dyn Runtime> = Arc::new(runtime);
        let Handlers { description, mut handlers, .. } = handlers;
        let mut config = options.config(description.name);
        config.heeds_cancellation = bus.is_in_process();
        let engine = Engine::new(config, runtime.seed())?;
        let id = engine.id().clone();
        let capacity = options.common.capacity();
        if !options.interceptors.is_empty() {
            let interceptors = Arc::new(options.interceptors);
            handlers.values_mut().for_each(|handler| handler.set_interceptors(&interceptors));
        }
        let watch = options.common.observers.watch();
        let role = ServerRole::new(handlers, watch, bus.monitor().is_some());
        let driver = Driver::start(engine, role, Arc::new(bus), runtime, capacity);
        Ok(Self { inner: Arc::new(Inner { driver, id }), routes: Routes::new(description) })
    }

    /// Serves `methods` on `topic`, all or none of them; an empty topic is that of methods without
    /// topics. Resolves when every request sent from then on reaches this server.
    ///
    /// Dropping the future does not undo it.
    ///
    /// # Errors
    ///
    /// `already_exists` when a method is registered already for the topic, or would share a channel
    /// with one that is, or when it is for one server alone and another of this process serves
    /// it on the same bus; `invalid_argument` when the topic cannot be carried, or a method has
    /// no handler or is of another service; `canceled` when the server is closed; `unavailable`
    /// when the bus refuses a subscription, or the methods are deregistered before
    /// they are served.
    pub async fn register(&self, methods: &[&'static Method], topic: &[&str]) -> Result<(), Error> {
        let routes = self.routes_of(methods, topic)?;
        if routes.is_empty() {
            return Ok(());
        }
        let setup = Arc::new(OnceLock::new());
        let registration = self.driver().execute(|state, _| {
            if let Some(method) = methods.iter().find(|method| !state.role.handlers.contains_key(method.name))
            {
                let text = format!("{}.{} has no handler", self.service().name, method.name);
                return Err(Error::new(ErrorCode::InvalidArgument, text));
            }
            // What this server serves itself the engine refuses, and says so.
            let guard = match SingleServerGuard::claim(self.driver().bus.id(), &routes) {
                Err(_) if routes.iter().any(|route| state.engine.serves(route)) => {
                    SingleServerGuard::default()
                }
                claimed => claimed?,
            };
            let registration = state.engine.register(routes)?;
            state.role.add_registration(registration, Arc::clone(&setup), guard);
            Ok(registration)
        })?;
        poll_fn(|cx| {
            self.driver()
                .with_state(|state| state.role.poll_registered(state.engine, registration, &setup, cx))
        })
        .await
    }

    /// Stops to serve methods that were registered together, the same `methods` on the same
    /// `topic`. Resolves when their handlers have ended and let go of their streams; what the
    /// bus had delivered until it confirmed is still served. Calls end by their deadlines;
    /// streams have none, so that a handler which does not heed the end of its stream is waited
    /// for.
    ///
    /// Dropping the future does not undo it.
    ///
    /// # Errors
    ///
    /// `not_found` when these methods were not registered together for this topic; `unavailable`
    /// when the runtime of the server has shut down.
    pub async fn deregister(&self, methods: &[&'static Method], topic: &[&str]) -> Result<(), Error> {
        let routes = self.routes_of(methods, topic)?;
        let registration = self.driver().execute(|state, now| {
            let registration = state.engine.registration(&routes)?;
            state.engine.deregister(now, registration);
            Some(registration)
        });
        match registration {
            Some(registration) => {
                poll_fn(|cx| {
                    self.driver().with_state(|state| state.role.poll_deregistered(registration, cx))
                })
                .await;
                Ok(())
            }
            None if self.driver().with_state(|state| state.engine.is_abandoned()) => {
                Err(RegisterError::RuntimeEnded.into())
            }
            None => {
                let names: Vec<_> = routes.iter().map(ToString::to_string).collect();
                let text = format!("{} is not registered, or not together", names.join(", "));
                Err(Error::new(ErrorCode::NotFound, text))
            }
        }
    }

    fn routes_of(&self, methods: &[&'static Method], topic: &[&str]) -> Result<Vec<Route>, Error> {
        methods.iter().map(|method| self.routes.route(method, topic)).collect()
    }

    /// Its id on the wire.
    pub fn id(&self) -> &str {
        self.inner.id.as_str()
    }

    /// The service that it serves.
    pub fn service(&self) -> &'static Service {
        self.routes.service()
    }

    /// Publishes an update to those who subscribe to `method` on `topic`.
    ///
    /// Generated servers have a method for each rpc, which is what to call instead.
    pub fn publish(&self, method: &'static Method, topic: &[&str], update: &impl Message) -> Publish<'_> {
        let route = self.routes.route_for(MethodKind::Subscription, method, topic);
        Publish::new(self.driver(), route, method.response, update.encode_to_vec())
    }

    /// How many requests are in flight: bid for, or running.
    pub fn in_flight(&self) -> usize {
        self.driver().with_state(|state| state.engine.in_flight())
    }

    /// How many streams there are, those that have ended and whose handlers are not done included.
    pub fn streams(&self) -> usize {
        self.driver().with_state(|state| state.engine.streams())
    }

    /// What happened so far: frames dropped and requests abandoned, by reason.
    pub fn counters(&self) -> Counters {
        self.driver().with_state(|state| state.engine.counters().clone())
    }

    /// Returns whether the server can work now: `Ok`, or why not, as an error. For health checks: a
    /// server whose bus recovers serves again by itself.
    ///
    /// # Errors
    ///
    /// When the bus is not connected or has stopped, when it refuses subscriptions, with its words
    /// as the cause, or when the server is closed or its runtime has shut down.
    pub fn health(&self) -> Result<(), Error> {
        self.driver().health(|engine| (engine.closed(), engine.interruption().cloned()))
    }

    /// Shuts the server down without losing what it has accepted: takes nothing new, and resolves
    /// when nothing is in flight any more. A bid that was made may still be granted, so it is
    /// waited for as a handler is, by the expiry of its request at the latest. To bound it,
    /// [`kill`](Self::kill) after a timeout of your own.
    ///
    /// Dropping the future does not stop the shutdown.
    pub async fn shutdown(&self) {
        self.driver().execute(|state, now| state.engine.drain(now));
        poll_fn(|cx| self.driver().with_state(|state| state.role.poll_closed(cx))).await;
    }

    /// Stops the server at once: the futures of its handlers are dropped, and their callers hear
    /// nothing. Streams end with "EOF".
    pub fn kill(&self) {
        self.driver().execute(|state, now| state.engine.kill(now));
    }

    fn driver(&self) -> &Arc<Driver<ServerRole>> {
        &self.inner.driver
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("service", &self.service().name).field("id", &self.id()).finish()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.driver.execute(|state, now| state.engine.drain(now));
    }
}
