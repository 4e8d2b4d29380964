//! The untyped server of a service, on which generated servers are built.

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
/// Dropping the last clone shuts the server down in the background, as [`shutdown`](Self::shutdown)
/// does.
#[derive(Clone)]
pub struct Server {
    inner: Arc<Inner>,
    routes: Routes,
}

/// The shared part of a server. Dropping it shuts the server down.
struct Inner {
    driver: Arc<Driver<ServerRole>>,
    id: Text,
}

impl Server {
    /// Creates a server with these handlers. It serves nothing until methods are
    /// [registered](Self::register).
    ///
    /// # Errors
    ///
    /// Returns `invalid_argument` if the server's id is not valid on the wire, or if a limit is out
    /// of range.
    ///
    /// # Panics
    ///
    /// Panics if the runtime has no timers, such as a tokio runtime without `enable_time`.
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
        let capacity = options.common.capacity()?;
        if !options.interceptors.is_empty() {
            let interceptors = Arc::new(options.interceptors);
            handlers.values_mut().for_each(|handler| handler.set_interceptors(&interceptors));
        }
        let watch = options.common.observers.watch();
        let role = ServerRole::new(handlers, watch, bus.monitor().is_some());
        let driver = Driver::start(engine, role, Arc::new(bus), runtime, capacity);
        Ok(Self { inner: Arc::new(Inner { driver, id }), routes: Routes::new(description) })
    }

    /// Registers `methods` on `topic`: either all of them, or none. The topic is empty for methods
    /// without topics. Resolves once every request sent from now on reaches this server.
    ///
    /// Dropping the future does not undo the registration.
    ///
    /// # Errors
    ///
    /// * `already_exists` if a method is already registered for the topic, or would share a channel
    ///   with one that is.
    /// * `already_exists` if the method is for a single server, and another server in this process
    ///   serves it on the same bus.
    /// * `invalid_argument` if the topic is invalid, or a method has no handler or belongs to
    ///   another service.
    /// * `canceled` if the server is closed.
    /// * `unavailable` if the bus refuses a subscription, or the methods are deregistered before
    ///   the registration is complete.
    pub async fn register(&self, methods: &[&'static Method], topic: &[&str]) -> Result<(), Error> {
        let routes = self.routes_of(methods, topic)?;
        if routes.is_empty() {
            return Ok(());
        }
        let register_result = Arc::new(OnceLock::new());
        let registration = self.driver().execute(|state, _| {
            if let Some(method) = methods.iter().find(|method| !state.role.handlers.contains_key(method.name))
            {
                let text = format!("{}.{} has no handler", self.service().name, method.name);
                return Err(Error::new(ErrorCode::InvalidArgument, text));
            }
            // If this server itself serves a method already, the engine returns the error.
            let guard = match SingleServerGuard::acquire(self.driver().bus.id(), &routes) {
                Err(_) if routes.iter().any(|route| state.engine.serves(route)) => {
                    SingleServerGuard::default()
                }
                acquired => acquired?,
            };
            let registration = state.engine.register(routes)?;
            state.role.add_registration(registration, Arc::clone(&register_result), guard);
            Ok(registration)
        })?;
        poll_fn(|cx| {
            self.driver().with_state(|state| {
                state.role.poll_registered(state.engine, registration, &register_result, cx)
            })
        })
        .await
    }

    /// Deregisters `methods` on `topic`, which must have been registered together. Resolves once
    /// their handlers have ended and released their streams.
    ///
    /// Requests that the bus delivers before it confirms the end of the subscriptions are still
    /// served. Calls end by their deadlines at the latest. Streams have no deadline, so a handler
    /// that ignores the end of its stream delays this function.
    ///
    /// Dropping the future does not undo the deregistration.
    ///
    /// # Errors
    ///
    /// Returns `not_found` if these methods were not registered together on this topic, and
    /// `unavailable` if the runtime of the server has shut down.
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
                let text = match names.len() {
                    1 => format!("{} is not registered", names[0]),
                    _ => format!("{} are not registered together", names.join(", ")),
                };
                Err(Error::new(ErrorCode::NotFound, text))
            }
        }
    }

    fn routes_of(&self, methods: &[&'static Method], topic: &[&str]) -> Result<Vec<Route>, Error> {
        methods.iter().map(|method| self.routes.route(method, topic)).collect()
    }

    /// Returns the server's id on the wire.
    pub fn id(&self) -> &str {
        self.inner.id.as_str()
    }

    /// Returns the service that this server serves.
    pub fn service(&self) -> &'static Service {
        self.routes.service()
    }

    /// Publishes an update to the subscribers of `method` on `topic`.
    ///
    /// Generated servers have a method for each rpc; prefer those.
    pub fn publish(&self, method: &'static Method, topic: &[&str], update: &impl Message) -> Publish<'_> {
        let route = self.routes.route_for(MethodKind::Subscription, method, topic);
        Publish::new(self.driver(), route, method.response, update.encode_to_vec())
    }

    /// Returns the number of requests in flight: those that the server decides on, has bid for, or
    /// runs.
    pub fn in_flight(&self) -> usize {
        self.driver().with_state(|state| state.engine.in_flight())
    }

    /// Returns the number of streams, including ended ones whose handlers are still running.
    pub fn streams(&self) -> usize {
        self.driver().with_state(|state| state.engine.streams())
    }

    /// Returns the number of requests and stream messages that are remembered until they expire, so
    /// that no duplicate runs. [`ServerLimits`](crate::ServerLimits) bounds it.
    pub fn remembered(&self) -> usize {
        self.driver().with_state(|state| state.engine.remembered())
    }

    /// Returns the numbers of dropped frames and abandoned requests so far, by reason.
    pub fn counters(&self) -> Counters {
        self.driver().with_state(|state| state.engine.counters().clone())
    }

    /// Returns `Ok` if the server can serve requests now, and otherwise an error that says why not.
    /// Intended for health checks. A server whose bus reconnects recovers by itself.
    ///
    /// # Errors
    ///
    /// Returns an error if the bus is disconnected or stopped, if the bus refuses a subscription
    /// (with the bus's error as the cause), if the server is closed, or if its runtime has shut
    /// down.
    pub fn health(&self) -> Result<(), Error> {
        self.driver().health(|engine| (engine.closed(), engine.interruption().cloned()))
    }

    /// Shuts the server down gracefully: accepts no new requests, and resolves once nothing is in
    /// flight.
    ///
    /// A bid may still be granted, so the shutdown waits for it as for a handler, until its request
    /// expires at the latest. To bound the wait, call [`kill`](Self::kill) after a timeout of your
    /// own.
    ///
    /// Dropping the future does not stop the shutdown.
    pub async fn shutdown(&self) {
        self.driver().execute(|state, now| state.engine.drain(now));
        poll_fn(|cx| self.driver().with_state(|state| state.role.poll_closed(cx))).await;
    }

    /// Stops the server at once. The futures of its handlers are dropped, and their callers get no
    /// response. Streams end with "EOF".
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
