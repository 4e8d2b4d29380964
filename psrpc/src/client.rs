//! The client of a service, on which generated clients stand.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use psrpc_engine::proto::{ErrorCode, Text};
use psrpc_engine::{
    BusError, Call as EngineCall, CallError, CallHandle, Claim, Client as Engine, ClientConfig, ClientEvent,
    ClientLimits, Counters, Failure, Reply, Route,
};

use slab::Slab;

use crate::bus::Bus;
use crate::driver::{Driver, Role};
use crate::interceptor::AroundCalls;
use crate::log::{self, Note};
use crate::method::{Method, Routes, Service};
use crate::middleware::{Observed, Observers, Side, Watch};
use crate::runtime::Runtime;
use crate::selection::Choose;
use crate::{Call, Error, guard, waiting};

/// Options of a client, each with its default.
#[derive(Clone, Debug, Default)]
pub struct ClientOptions {
    id: Option<Text>,
    timeout: Option<Duration>,
    selection_timeout: Option<Duration>,
    channel_size: Option<usize>,
    limits: Option<ClientLimits>,
    pub(crate) around: AroundCalls,
    pub(crate) observers: Observers,
}

/// The default room of a subscription, in frames.
pub(crate) const CHANNEL_SIZE: usize = 8192;

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

    /// How many frames of a subscription may wait for the client before the newest are lost. Default 8,192.
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

    /// Adds another set of options: what it sets replaces what is set here; interceptors, hooks and observers come after
    /// those that are here.
    #[must_use]
    pub fn with(mut self, bundle: Self) -> Self {
        self.id = bundle.id.or(self.id);
        self.timeout = bundle.timeout.or(self.timeout);
        self.selection_timeout = bundle.selection_timeout.or(self.selection_timeout);
        self.channel_size = bundle.channel_size.or(self.channel_size);
        self.limits = bundle.limits.or(self.limits);
        self.around.append(bundle.around);
        self.observers.append(bundle.observers);
        self
    }

    fn config(&self, service: &str) -> ClientConfig {
        let mut config = ClientConfig::new(service);
        config.id = self.id.clone().unwrap_or(config.id);
        config.timeout = self.timeout.unwrap_or(config.timeout);
        config.affinity_timeout = self.selection_timeout.unwrap_or(config.affinity_timeout);
        config.limits = self.limits.unwrap_or(config.limits);
        config
    }
}

/// A client of a service. Cheap to clone; all clones are one client.
///
/// Dropping the last clone closes it, as [`close`](Self::close) does; calls keep it alive until they end.
#[derive(Clone)]
pub struct Client {
    handle: Arc<Handle>,
    routes: Routes,
}

/// Closes the client when the last clone and the last call are gone.
struct Handle {
    driver: Arc<Driver<ClientRole>>,
    around: AroundCalls,
    id: Text,
}

impl Client {
    /// A client of `service`, ready to call: its subscriptions are live.
    ///
    /// Dropping the future before it is ready closes the client again.
    ///
    /// # Errors
    ///
    /// When the id cannot be carried (`invalid_argument`), or the bus refuses a subscription (`unavailable`).
    pub async fn new(
        bus: impl Bus,
        runtime: impl Runtime,
        service: &'static Service,
        options: ClientOptions,
    ) -> Result<Self, Error> {
        let runtime: Arc<dyn Runtime> = Arc::new(runtime);
        let engine = Engine::new(options.config(service.name), runtime.seed())?;
        let id = engine.id().clone();
        let capacity = options.channel_size.unwrap_or(CHANNEL_SIZE);
        let role = ClientRole { watch: options.observers.watch(), ..ClientRole::default() };
        let driver = Driver::start(engine, role, Arc::new(bus), runtime, capacity);
        let around = options.around;
        let client = Self { handle: Arc::new(Handle { driver, around, id }), routes: Routes::new(service) };
        poll_fn(|cx| client.driver().look(|state| state.role.poll_ready(cx))).await?;
        Ok(client)
    }

    /// Makes a call of `method` on `topic`, which is empty for a method without topics.
    ///
    /// Generated clients have a method for each rpc, which is what to call instead.
    pub fn call<Req, Res>(&self, method: &'static Method, topic: &[&str], request: Req) -> Call<Req, Res> {
        Call::new(self.clone(), self.routes.route(method, topic), request)
    }

    /// Its id on the wire.
    pub fn id(&self) -> &str {
        self.handle.id.as_str()
    }

    /// The service that it calls.
    pub fn service(&self) -> &'static Service {
        self.routes.service()
    }

    /// How many calls are in flight.
    pub fn in_flight(&self) -> usize {
        self.driver().look(|state| state.engine.in_flight())
    }

    /// What happened so far: frames dropped and calls failed, by reason.
    pub fn counters(&self) -> Counters {
        self.driver().look(|state| state.engine.counters().clone())
    }

    /// Closes the client: its calls fail at once with "client is closed", and so do later ones.
    pub fn close(&self) {
        self.driver().drive(|state, now| state.engine.close(now));
    }

    pub(crate) fn around(&self) -> &AroundCalls {
        &self.handle.around
    }

    pub(crate) fn driver(&self) -> &Arc<Driver<ClientRole>> {
        &self.handle.driver
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("service", &self.service().name).field("id", &self.id()).finish()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.driver.drive(|state, now| state.engine.close(now));
    }
}

/// What becomes of a client's events: outcomes go to the callers that wait for them.
#[derive(Default)]
pub(crate) struct ClientRole {
    watch: Option<Watch>,
    phase: Phase,
    /// Who waits for the client to be ready.
    waiting: Vec<Waker>,
    /// Whoever has not fetched the outcome of its call yet.
    callers: Slab<Caller>,
    /// The callers of the calls in flight, by the index of the calls' handles.
    in_flight: Vec<Option<usize>>,
}

#[derive(Default)]
enum Phase {
    #[default]
    Starting,
    Ready,
    Closed {
        error: Option<BusError>,
    },
}

/// Somebody who waits for a call.
struct Caller {
    choose: Option<Choose>,
    outcome: Option<Result<Reply, Box<Failure>>>,
    waker: Option<Waker>,
}

/// What is to be done for a client once its lock is free.
pub(crate) enum ClientTask {
    Wake(Waker),
    Choose(CallHandle, Vec<Claim>, Choose),
    /// Boxed like the note, since they are rare and tasks are moved about.
    Observe(Box<Observed>),
    Log(Box<Note>),
}

impl Role for ClientRole {
    type Engine = Engine;
    type Task = ClientTask;

    fn on_event(&mut self, event: ClientEvent, tasks: &mut Vec<ClientTask>) {
        if let Some(watch) = &mut self.watch {
            tasks.extend(watch.on_client_event(&event).map(ClientTask::Observe));
        }
        match event {
            ClientEvent::Ready => {
                self.phase = Phase::Ready;
                tasks.extend(self.waiting.drain(..).map(ClientTask::Wake));
            }
            ClientEvent::Closed { error } => {
                tasks.extend(error.clone().map(Note::SubscriptionLost).map(Box::new).map(ClientTask::Log));
                self.phase = Phase::Closed { error };
                tasks.extend(self.waiting.drain(..).map(ClientTask::Wake));
            }
            ClientEvent::Resolved { call, outcome } => {
                // Nobody waits for a call that was dropped.
                if let Some(caller) = self.in_flight[call.index()].take() {
                    let caller = &mut self.callers[caller];
                    caller.outcome = Some(outcome);
                    tasks.extend(caller.waker.take().map(ClientTask::Wake));
                }
            }
            ClientEvent::Select { call, claims } => {
                let caller = self.in_flight[call.index()];
                if let Some(choose) = caller.and_then(|caller| self.callers[caller].choose.take()) {
                    tasks.push(ClientTask::Choose(call, claims, choose));
                }
            }
            // Counted by the engine.
            event => tasks.extend(Note::of_client(event).map(Box::new).map(ClientTask::Log)),
        }
    }

    fn perform(driver: &Arc<Driver<Self>>, task: ClientTask) {
        match task {
            ClientTask::Wake(waker) => waker.wake(),
            ClientTask::Observe(observed) => observed.tell(Side::Client, &*driver.runtime),
            ClientTask::Log(note) => {
                let (service, id) =
                    driver.look(|state| (state.engine.service().clone(), state.engine.id().clone()));
                note.write(Side::Client, &service, &id);
            }
            ClientTask::Choose(call, claims, choose) => {
                let choice = guard::catch(|| choose(&claims))
                    .unwrap_or_else(|| {
                        log::panicked(Side::Client, "a selection function", None);
                        Err(Error::new(ErrorCode::Internal, "the selection function panicked"))
                    })
                    .map(|claim| claim.map(|claim| claim.server_id.clone()))
                    .map_err(Error::into_response);
                driver.drive(|state, now| state.engine.select(now, call, choice));
            }
        }
    }

    fn is_finished(&self) -> bool {
        matches!(self.phase, Phase::Closed { .. })
    }
}

impl ClientRole {
    fn poll_ready(&mut self, cx: &Context<'_>) -> Poll<Result<(), Error>> {
        match &self.phase {
            Phase::Ready => Poll::Ready(Ok(())),
            Phase::Closed { error: Some(error) } => Poll::Ready(Err(error.clone().into())),
            Phase::Closed { error: None } => Poll::Ready(Err(CallError::Closed.into())),
            Phase::Starting => {
                waiting::wait(&mut self.waiting, cx);
                Poll::Pending
            }
        }
    }

    fn wait_for(&mut self, call: CallHandle, choose: Option<Choose>) -> usize {
        let caller = self.callers.insert(Caller { choose, outcome: None, waker: None });
        if self.in_flight.len() <= call.index() {
            self.in_flight.resize(call.index() + 1, None);
        }
        self.in_flight[call.index()] = Some(caller);
        caller
    }
}

/// A call in flight. Dropping it cancels the call.
pub(crate) struct InFlight {
    client: Client,
    call: CallHandle,
    /// `None` once the outcome was fetched.
    caller: Option<usize>,
}

impl InFlight {
    /// Makes a call.
    pub(crate) fn start(client: Client, call: EngineCall, choose: Option<Choose>) -> Result<Self, CallError> {
        let (call, caller) = client.driver().drive(|state, now| {
            let call = state.engine.call(now, call)?;
            Ok::<_, CallError>((call, Some(state.role.wait_for(call, choose))))
        })?;
        Ok(Self { client, call, caller })
    }

    pub(crate) fn poll(&mut self, cx: &Context<'_>) -> Poll<Result<Reply, Box<Failure>>> {
        let key = self.caller.expect("a call is polled until it is done");
        // What is done with is dropped without the lock, since it may hold what user code wants to clean up.
        let (mut done, _replaced) = self.client.driver().look(|state| {
            let caller = &mut state.role.callers[key];
            match caller.outcome {
                Some(_) => (Some(state.role.callers.remove(key)), None),
                None => (None, waiting::replace(&mut caller.waker, cx)),
            }
        });
        match done.as_mut().and_then(|caller| caller.outcome.take()) {
            Some(outcome) => {
                self.caller = None;
                Poll::Ready(outcome)
            }
            None => Poll::Pending,
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let (call, Some(caller)) = (self.call, self.caller) else { return };
        let caller = self.client.driver().drive(|state, _| {
            let caller = state.role.callers.remove(caller);
            // With an outcome the call is over, and its index may be another's.
            if caller.outcome.is_none() {
                state.role.in_flight[call.index()] = None;
                state.engine.cancel(call);
            }
            caller
        });
        // Without the lock, since its selection function may hold what user code wants to clean up.
        drop(caller);
    }
}

/// What [`Client::call`] found out about the route.
pub(crate) type RouteResult = Result<Route, Error>;
