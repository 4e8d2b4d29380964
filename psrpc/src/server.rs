//! The server of a service, on which generated servers stand.

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use prost::Message;
use psrpc_engine::proto::{ErrorCode, Text};
use psrpc_engine::{
    BusError, Counters, Received, RegisterError, RegistrationHandle, RequestHandle, Route, Server as Engine,
    ServerConfig, ServerEvent, ServerLimits,
};

use crate::bus::Bus;
use crate::client::CHANNEL_SIZE;
use crate::driver::{Driver, Role};
use crate::handler::{Admitted, Affinity, Handle, Running, Stop, Unary};
use crate::interceptor::AroundHandlers;
use crate::log::Note;
use crate::method::{Method, Routes, Service};
use crate::middleware::{Observed, Observers, Side, Watch};
use crate::runtime::Runtime;
use crate::{Error, Request, waiting};

/// Options of a server, each with its default.
#[derive(Clone, Debug, Default)]
pub struct ServerOptions {
    id: Option<Text>,
    drain_timeout: Option<Duration>,
    skew_allowance: Option<Duration>,
    horizon: Option<Duration>,
    channel_size: Option<usize>,
    limits: Option<ServerLimits>,
    pub(crate) around: AroundHandlers,
    pub(crate) observers: Observers,
}

impl ServerOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// The server's id on the wire. Default, also for an empty one: drawn at random.
    ///
    /// No other server of the service may have it: a call granted to one would run on both.
    #[must_use]
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into().into());
        self
    }

    /// How long a shutdown waits for the bus to confirm that nothing more will come. Default 3 s. What comes later is not
    /// accepted.
    ///
    /// Requests in flight are waited for until they expire, however long that is.
    #[must_use]
    pub fn drain_timeout(mut self, timeout: Duration) -> Self {
        self.drain_timeout = Some(timeout);
        self
    }

    /// How far the clients' wall clocks may be behind before their requests count as expired. Default 0.
    ///
    /// A request without a claim may then run up to this long after its caller gave up. On Redis, tell the bus of it too
    /// (`RedisOptions::skew_allowance`), lest a late queue request is handed to every server.
    #[must_use]
    pub fn skew_allowance(mut self, allowance: Duration) -> Self {
        self.skew_allowance = Some(allowance);
        self
    }

    /// How long after it was sent a request may expire at the latest. Default 1 h.
    #[must_use]
    pub fn horizon(mut self, horizon: Duration) -> Self {
        self.horizon = Some(horizon);
        self
    }

    /// How many frames of a subscription may wait for the server before the newest are lost. Default 8,192.
    #[must_use]
    pub fn channel_size(mut self, frames: usize) -> Self {
        self.channel_size = Some(frames);
        self
    }

    /// What the server holds at most.
    #[must_use]
    pub fn limits(mut self, limits: ServerLimits) -> Self {
        self.limits = Some(limits);
        self
    }

    /// Adds another set of options: what it sets replaces what is set here; interceptors and observers come after those
    /// that are here.
    #[must_use]
    pub fn with(mut self, bundle: Self) -> Self {
        self.id = bundle.id.or(self.id);
        self.drain_timeout = bundle.drain_timeout.or(self.drain_timeout);
        self.skew_allowance = bundle.skew_allowance.or(self.skew_allowance);
        self.horizon = bundle.horizon.or(self.horizon);
        self.channel_size = bundle.channel_size.or(self.channel_size);
        self.limits = bundle.limits.or(self.limits);
        self.around.append(bundle.around);
        self.observers.append(bundle.observers);
        self
    }

    fn config(&self, service: &str) -> ServerConfig {
        let mut config = ServerConfig::new(service);
        config.id = self.id.clone().unwrap_or(config.id);
        config.drain_timeout = self.drain_timeout.unwrap_or(config.drain_timeout);
        config.skew_allowance = self.skew_allowance.unwrap_or(config.skew_allowance);
        config.horizon = self.horizon.unwrap_or(config.horizon);
        config.limits = self.limits.unwrap_or(config.limits);
        config
    }
}

/// The handlers of a server to be, one for each method, on a service of type `S` that they share.
pub struct Handlers<S> {
    description: &'static Service,
    service: Arc<S>,
    handlers: BTreeMap<&'static str, Box<dyn Handle>>,
}

impl<S: Send + Sync + 'static> Handlers<S> {
    /// No handlers yet.
    pub fn new(description: &'static Service, service: S) -> Self {
        Self { description, service: Arc::new(service), handlers: BTreeMap::new() }
    }

    /// Handles a unary method. The handler's future is dropped at the request's deadline; a panic in it fails its call
    /// alone, with `internal`.
    #[must_use]
    pub fn unary<Req, Res, F, Fut>(self, method: &'static Method, handler: F) -> Self
    where
        Req: Message + Default + 'static,
        Res: Message + 'static,
        F: Fn(Arc<S>, Request<Req>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Res, Error>> + Send + 'static,
    {
        self.add(method, handler, None)
    }

    /// Handles a unary method, with a function that says how well this server suits a request: more is better, 0 is not
    /// available, below 0 makes no bid, and so does a panic. It runs on the server's background task, which it must not
    /// block. A method that requires no claim does not ask it.
    #[must_use]
    pub fn unary_with_affinity<Req, Res, F, Fut>(
        self,
        method: &'static Method,
        handler: F,
        affinity: impl Fn(&S, &Request<Req>) -> f32 + Send + Sync + 'static,
    ) -> Self
    where
        Req: Message + Default + 'static,
        Res: Message + 'static,
        F: Fn(Arc<S>, Request<Req>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Res, Error>> + Send + 'static,
    {
        let service = Arc::clone(&self.service);
        self.add(method, handler, Some(Box::new(move |request| affinity(&service, request))))
    }

    fn add<Req, Res, F, Fut>(
        mut self,
        method: &'static Method,
        handler: F,
        affinity: Option<Affinity<Req>>,
    ) -> Self
    where
        Req: Message + Default + 'static,
        Res: Message + 'static,
        F: Fn(Arc<S>, Request<Req>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Res, Error>> + Send + 'static,
    {
        let service = Arc::clone(&self.service);
        let handler = Arc::new(move |request| handler(Arc::clone(&service), request));
        self.handlers.insert(method.name, Box::new(Unary { method, handler, affinity, around: None }));
        self
    }
}

/// A server of a service. Cheap to clone; all clones are one server.
///
/// Dropping the last clone shuts it down in the background, as [`shutdown`](Self::shutdown) does.
#[derive(Clone)]
pub struct Server {
    handle: Arc<Inner>,
    routes: Routes,
}

/// Shuts the server down when the last clone is gone.
struct Inner {
    driver: Arc<Driver<ServerRole>>,
    id: Text,
}

impl Server {
    /// A server with these handlers. It serves nothing until methods are [registered](Self::register).
    ///
    /// # Errors
    ///
    /// When the id cannot be carried (`invalid_argument`).
    pub fn new<S>(
        bus: impl Bus,
        runtime: impl Runtime,
        handlers: Handlers<S>,
        options: ServerOptions,
    ) -> Result<Self, Error> {
        let runtime: Arc<dyn Runtime> = Arc::new(runtime);
        let Handlers { description, mut handlers, .. } = handlers;
        let engine = Engine::new(options.config(description.name), runtime.seed())?;
        let id = engine.id().clone();
        let capacity = options.channel_size.unwrap_or(CHANNEL_SIZE);
        if !options.around.is_empty() {
            let around = Arc::new(options.around);
            handlers.values_mut().for_each(|handler| handler.surround(&around));
        }
        let watch = options.observers.watch();
        let role = ServerRole { handlers: Arc::new(handlers), watch, ..ServerRole::default() };
        let driver = Driver::start(engine, role, Arc::new(bus), runtime, capacity);
        Ok(Self { handle: Arc::new(Inner { driver, id }), routes: Routes::new(description) })
    }

    /// Serves `methods` on `topic`, all or none of them; an empty topic is that of methods without topics. Resolves when
    /// every request sent from then on reaches this server.
    ///
    /// Dropping the future does not undo it.
    ///
    /// # Errors
    ///
    /// `already_exists` when a method is registered already for the topic, or would share a channel with one that is;
    /// `invalid_argument` when the topic cannot be carried, or a method has no handler or is of another service; `canceled`
    /// when the server is closed; `unavailable` when the bus refuses a subscription, or the methods are deregistered before
    /// they are served.
    pub async fn register(&self, methods: &[&'static Method], topic: &[&str]) -> Result<(), Error> {
        let routes = self.routes_of(methods, topic)?;
        if routes.is_empty() {
            return Ok(());
        }
        let joined = Arc::new(OnceLock::new());
        let registration = self.driver().drive(|state, _| {
            if let Some(method) = methods.iter().find(|method| !state.role.handlers.contains_key(method.name))
            {
                let text = format!("{}.{} has no handler", self.service().name, method.name);
                return Err(Error::new(ErrorCode::InvalidArgument, text));
            }
            let key = key(&routes);
            let registration = state.engine.register(routes)?;
            state.role.joining(registration, key, Arc::clone(&joined));
            Ok(registration)
        })?;
        poll_fn(|cx| self.driver().look(|state| state.role.poll_joined(registration, &joined, cx))).await
    }

    /// Stops to serve methods that were registered together, the same `methods` on the same `topic`. Resolves when their
    /// handlers have ended; what the bus had delivered until it confirmed is still served.
    ///
    /// Dropping the future does not undo it.
    ///
    /// # Errors
    ///
    /// `not_found` when these methods were not registered together for this topic.
    pub async fn deregister(&self, methods: &[&'static Method], topic: &[&str]) -> Result<(), Error> {
        let key = self.routes_of(methods, topic)?;
        let registration = self.driver().drive(|state, _| {
            let registration = state.role.find(&key)?;
            state.engine.deregister(registration);
            Some(registration)
        });
        match registration {
            Some(registration) => {
                poll_fn(|cx| self.driver().look(|state| state.role.poll_gone(registration, cx))).await;
                Ok(())
            }
            None => {
                let names: Vec<_> = key.iter().map(ToString::to_string).collect();
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
        self.handle.id.as_str()
    }

    /// The service that it serves.
    pub fn service(&self) -> &'static Service {
        self.routes.service()
    }

    /// How many requests are in flight: bid for, or running.
    pub fn in_flight(&self) -> usize {
        self.driver().look(|state| state.engine.in_flight())
    }

    /// What happened so far: frames dropped and requests abandoned, by reason.
    pub fn counters(&self) -> Counters {
        self.driver().look(|state| state.engine.counters().clone())
    }

    /// Shuts the server down without losing what it has accepted: takes nothing new, and resolves when nothing is in
    /// flight any more. A bid that was made may still be granted, so it is waited for as a handler is, by the expiry of
    /// its request at the latest. To bound it, [`kill`](Self::kill) after a timeout of your own.
    ///
    /// Dropping the future does not stop the shutdown.
    pub async fn shutdown(&self) {
        self.driver().drive(|state, now| state.engine.drain(now));
        poll_fn(|cx| self.driver().look(|state| state.role.poll_closed(cx))).await;
    }

    /// Stops the server at once: the futures of its handlers are dropped, and their callers hear nothing.
    pub fn kill(&self) {
        self.driver().drive(|state, _| state.engine.kill());
    }

    fn driver(&self) -> &Arc<Driver<ServerRole>> {
        &self.handle.driver
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("service", &self.service().name).field("id", &self.id()).finish()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.driver.drive(|state, now| state.engine.drain(now));
    }
}

/// What a registration is found by.
type Key = (Vec<Text>, Vec<Text>);

/// The methods and the topic of routes that are registered together.
fn key(routes: &[Route]) -> Key {
    let topic = routes.first().map(|route| route.topic().to_vec()).unwrap_or_default();
    (routes.iter().map(|route| route.method().clone()).collect(), topic)
}

/// What becomes of a server's events: requests go to their handlers.
#[derive(Default)]
pub(crate) struct ServerRole {
    handlers: Arc<BTreeMap<&'static str, Box<dyn Handle>>>,
    watch: Option<Watch>,
    /// By the index of their handles.
    requests: Vec<Option<(RequestHandle, Stage)>>,
    registrations: BTreeMap<RegistrationHandle, Registration>,
    keys: BTreeMap<Key, RegistrationHandle>,
    closed: bool,
    waiting_for_close: Vec<Waker>,
}

/// How far a request has come.
enum Stage {
    /// It waits for the client's grant.
    Admitted(Admitted),
    Running(Arc<Stop>),
}

/// How the set-up of a registration ended, once it has; whoever registered reads it.
type Joined = OnceLock<Result<(), BusError>>;

struct Registration {
    key: Key,
    joined: Arc<Joined>,
    waiting: Vec<Waker>,
}

/// What is to be done for a server once its lock is free.
pub(crate) enum ServerTask {
    Wake(Waker),
    Admit(Received),
    Run(RequestHandle, Running),
    Stop(Arc<Stop>),
    /// What user code made, which user code may want to clean up.
    Discard(Admitted),
    /// Boxed like the note, since they are rare and tasks are moved about.
    Observe(Box<Observed>),
    Log(Box<Note>),
}

impl Role for ServerRole {
    type Engine = Engine;
    type Task = ServerTask;

    fn on_event(&mut self, event: ServerEvent, tasks: &mut Vec<ServerTask>) {
        if let Some(watch) = &mut self.watch {
            tasks.extend(watch.on_server_event(&event).map(ServerTask::Observe));
        }
        match event {
            ServerEvent::Received(received) => tasks.push(ServerTask::Admit(received)),
            ServerEvent::Run { request } => {
                if let Some(Stage::Admitted(Admitted { method, run, .. })) = self.take(request) {
                    let stop = Arc::new(Stop::default());
                    tasks.push(ServerTask::Run(request, Running::new(method, run, Arc::clone(&stop))));
                    self.put(request, Stage::Running(stop));
                }
            }
            ServerEvent::Abandoned { request, .. } => match self.take(request) {
                Some(Stage::Admitted(admitted)) => tasks.push(ServerTask::Discard(admitted)),
                Some(Stage::Running(stop)) => tasks.push(ServerTask::Stop(stop)),
                None => {}
            },
            ServerEvent::Registered { registration, result } => {
                let Some(joining) = self.registrations.get_mut(&registration) else { return };
                let refused = result.is_err();
                // Set once, since a registration ends its set-up once.
                let _ = joining.joined.set(result);
                tasks.extend(joining.waiting.drain(..).map(ServerTask::Wake));
                if refused {
                    self.forget(registration, tasks);
                }
            }
            ServerEvent::Deregistered { registration } => self.forget(registration, tasks),
            ServerEvent::Closed => {
                self.closed = true;
                let gone = std::mem::take(&mut self.registrations).into_values();
                let waiting = gone.flat_map(|gone| gone.waiting).chain(self.waiting_for_close.drain(..));
                tasks.extend(waiting.map(ServerTask::Wake));
                self.keys.clear();
            }
            ServerEvent::Lost { registration } => {
                let lost = self.registrations.get(&registration).map(|lost| lost.key.clone());
                let note = lost.map(|(methods, topic)| Note::RegistrationLost { methods, topic });
                tasks.extend(note.map(Box::new).map(ServerTask::Log));
            }
            // Counted by the engine.
            event => tasks.extend(Note::of_server(event).map(Box::new).map(ServerTask::Log)),
        }
    }

    fn perform(driver: &Arc<Driver<Self>>, task: ServerTask) {
        match task {
            ServerTask::Wake(waker) => waker.wake(),
            ServerTask::Observe(observed) => observed.tell(Side::Server, &*driver.runtime),
            ServerTask::Log(note) => {
                let (service, id) =
                    driver.look(|state| (state.engine.service().clone(), state.engine.id().clone()));
                note.write(Side::Server, &service, &id);
            }
            ServerTask::Stop(stop) => stop.stop(),
            ServerTask::Discard(admitted) => drop(admitted),
            ServerTask::Admit(received) => admit(driver, received),
            ServerTask::Run(request, running) => {
                let server = Arc::clone(driver);
                driver.runtime.spawn(Box::pin(async move {
                    if let Some(result) = running.await {
                        let result = result.map_err(Error::into_response);
                        let stage = server.drive(|state, now| {
                            state.engine.respond(now, request, result);
                            state.role.take(request)
                        });
                        drop(stage);
                    }
                }));
            }
        }
    }

    fn is_finished(&self) -> bool {
        self.closed
    }
}

/// Decodes a request, and bids for it.
fn admit(driver: &Arc<Driver<ServerRole>>, received: Received) {
    let request = received.request;
    let handlers = driver.look(|state| Arc::clone(&state.role.handlers));
    let handler =
        handlers.get(received.route.method().as_str()).expect("only methods with a handler are registered");
    match handler.admit(received, &driver.runtime) {
        Ok(admitted) => driver.drive(|state, now| {
            // Meanwhile it may have been granted elsewhere, or have expired.
            if state.engine.is_waiting(request) {
                let Admitted { affinity, elected, .. } = admitted;
                if let Some(watch) = &mut state.role.watch {
                    watch.bids(now.time, request, elected);
                }
                state.role.put(request, Stage::Admitted(admitted));
                match elected {
                    true => state.engine.elect(now, request),
                    false => state.engine.bid(now, request, affinity),
                }
            }
        }),
        Err(error) => driver.drive(|state, now| state.engine.reject(now, request, error.into_response())),
    }
}

impl ServerRole {
    fn put(&mut self, request: RequestHandle, stage: Stage) {
        if self.requests.len() <= request.index() {
            self.requests.resize_with(request.index() + 1, || None);
        }
        self.requests[request.index()] = Some((request, stage));
    }

    fn take(&mut self, request: RequestHandle) -> Option<Stage> {
        // A handler that was abandoned may end when its place is another's already.
        let place = self.requests.get_mut(request.index())?;
        place.take_if(|(known, _)| *known == request).map(|(_, stage)| stage)
    }

    fn find(&self, routes: &[Route]) -> Option<RegistrationHandle> {
        self.keys.get(&key(routes)).copied()
    }

    fn joining(&mut self, registration: RegistrationHandle, key: Key, joined: Arc<Joined>) {
        self.keys.insert(key.clone(), registration);
        self.registrations.insert(registration, Registration { key, joined, waiting: Vec::new() });
    }

    fn forget(&mut self, registration: RegistrationHandle, tasks: &mut Vec<ServerTask>) {
        if let Some(gone) = self.registrations.remove(&registration) {
            self.keys.remove(&gone.key);
            tasks.extend(gone.waiting.into_iter().map(ServerTask::Wake));
        }
    }

    fn poll_joined(
        &mut self,
        registration: RegistrationHandle,
        joined: &Joined,
        cx: &Context<'_>,
    ) -> Poll<Result<(), Error>> {
        match (joined.get(), self.registrations.get_mut(&registration)) {
            (Some(result), _) => Poll::Ready(Ok(result.clone()?)),
            (None, Some(registration)) => {
                waiting::wait(&mut registration.waiting, cx);
                Poll::Pending
            }
            (None, None) => Poll::Ready(Err(RegisterError::Closed.into())),
        }
    }

    fn poll_gone(&mut self, registration: RegistrationHandle, cx: &Context<'_>) -> Poll<()> {
        match self.registrations.get_mut(&registration) {
            Some(registration) => {
                waiting::wait(&mut registration.waiting, cx);
                Poll::Pending
            }
            None => Poll::Ready(()),
        }
    }

    fn poll_closed(&mut self, cx: &Context<'_>) -> Poll<()> {
        if self.closed {
            return Poll::Ready(());
        }
        waiting::wait(&mut self.waiting_for_close, cx);
        Poll::Pending
    }
}
