//! The server's part of the driver.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use psrpc_engine::proto::{ErrorCode, ErrorResponse};
use psrpc_engine::{
    BusError, Now, Received, RegisterError, RegistrationHandle, RequestHandle, Server as Engine, ServerEvent,
    StreamHandle,
};

use super::single_server::SingleServerGuard;
use super::updates::PublishTable;
use crate::bus::BusEvent;
use crate::cancellation::{CancelOnDrop, CancellationToken};
use crate::driver::{Driver, DriverState, LARGE, Role};
use crate::error::Error;
use crate::info::Side;
use crate::log;
use crate::log::{Label, Note};
use crate::middleware::{PendingObservation, Watch};
use crate::server::handler::{Admitted, MethodHandler, OpenStream, Run, RunningHandler};
use crate::stream::{Codec, DriverEnd, StreamRole, StreamTable, StreamTask};
use crate::{guard, waiting};

/// The role of a server: passes requests from the engine to their handlers.
#[derive(Default)]
pub(crate) struct ServerRole {
    pub(super) handlers: Arc<HandlerMap>,
    watch: Option<Watch>,
    /// Whether the bus reports outages through a monitor.
    is_monitored: bool,
    /// By the index of the request handle.
    requests: Vec<Option<(RequestHandle, RequestStage)>>,
    registrations: BTreeMap<RegistrationHandle, Registration>,
    closed: bool,
    waiting_for_close: Vec<Waker>,
    streams: StreamTable,
    pub(super) updates: PublishTable,
}

/// Handlers, by method name.
pub(super) type HandlerMap = BTreeMap<&'static str, Box<dyn MethodHandler>>;

/// The progress of a request.
enum RequestStage {
    /// Waiting for the client's grant.
    Admitted(Admitted),
    Running(Arc<CancellationToken>),
}

/// The result of a registration, once it is complete. The task that waits for the registration
/// reads it.
pub(super) type RegisterResult = OnceLock<Result<(), BusError>>;

struct Registration {
    /// `None` once the registration is complete.
    register_result: Option<Arc<RegisterResult>>,
    waiting: Vec<Waker>,
    /// Released with the registration.
    _guard: SingleServerGuard,
}

/// Work for a server, to be done after its lock is released.
pub(crate) enum ServerTask {
    Wake(Waker),
    Admit(Received, Arc<HandlerMap>),
    Run(RequestHandle, RunningHandler<Bytes>),
    /// Runs the handler of a stream that was opened.
    Serve {
        label: Label,
        stream: StreamHandle,
        key: usize,
        open: OpenStream,
        codec: Arc<Codec>,
        token: CancelOnDrop,
    },
    Stream(StreamTask),
    Cancel(Arc<CancellationToken>),
    /// Drops a request, which may run user code.
    Discard(Admitted),
    /// Boxed, since it is rare and tasks are moved around.
    Observe(Box<PendingObservation>),
    Log(Box<Note>),
}

/// A request after decoding: to bid for, or to reject.
pub(crate) type Decision = (RequestHandle, Result<Admitted, ErrorResponse>);

impl Role for ServerRole {
    type Engine = Engine;
    type Task = ServerTask;
    type Command = Decision;

    fn on_event(&mut self, event: ServerEvent, tasks: &mut Vec<ServerTask>) {
        if let Some(watch) = &mut self.watch {
            tasks.extend(watch.on_server_event(&event).map(ServerTask::Observe));
        }
        match event {
            ServerEvent::Received(received) => {
                tasks.push(ServerTask::Admit(received, Arc::clone(&self.handlers)));
            }
            ServerEvent::Run { request } => {
                if let Some(RequestStage::Admitted(Admitted { label, run: Run::Call(run), token, .. })) =
                    self.take(request)
                {
                    self.put(request, RequestStage::Running(Arc::clone(&token.0)));
                    tasks.push(ServerTask::Run(request, RunningHandler::new(label, run, token)));
                }
            }
            ServerEvent::Accepted { request, stream } => {
                if let Some(RequestStage::Admitted(Admitted {
                    label,
                    run: Run::Stream(open, codec),
                    token,
                    ..
                })) = self.take(request)
                {
                    let key = self.streams.open(stream, Arc::clone(&codec), Some(Arc::clone(&token.0)));
                    tasks.push(ServerTask::Serve { label, stream, key, open, codec, token });
                }
            }
            ServerEvent::Stream(event) => {
                if let Some(watch) = &self.watch {
                    let observed = watch.on_stream_event(&event, |stream| self.streams.info(stream));
                    tasks.extend(observed.map(ServerTask::Observe));
                }
                self.streams.on_event(event, &mut |task| tasks.push(ServerTask::Stream(task)));
            }
            ServerEvent::StopHandler { stream } => {
                tasks.extend(self.streams.stop_handler(stream).map(ServerTask::Cancel));
            }
            ServerEvent::Updated { update, outcome } => {
                tasks.extend(self.updates.ended(update, outcome).map(ServerTask::Wake));
            }
            ServerEvent::Abandoned { request, .. } => match self.take(request) {
                Some(RequestStage::Admitted(admitted)) => tasks.push(ServerTask::Discard(admitted)),
                Some(RequestStage::Running(token)) => tasks.push(ServerTask::Cancel(token)),
                None => {}
            },
            ServerEvent::Registered { registration, result } => {
                let Some(registered) = self.registrations.get_mut(&registration) else { return };
                let refused = result.is_err();
                if let Some(register_result) = registered.register_result.take() {
                    // Cannot fail, since a registration completes only once.
                    let _ = register_result.set(result);
                }
                // Takes the allocation too, since there may be many registrations.
                tasks.extend(std::mem::take(&mut registered.waiting).into_iter().map(ServerTask::Wake));
                if refused {
                    self.remove_registration(registration, tasks);
                }
            }
            ServerEvent::Deregistered { registration } => self.remove_registration(registration, tasks),
            ServerEvent::Closed => {
                self.closed = true;
                let removed = std::mem::take(&mut self.registrations).into_values();
                let waiting =
                    removed.flat_map(|removed| removed.waiting).chain(self.waiting_for_close.drain(..));
                tasks.extend(waiting.map(ServerTask::Wake));
            }
            ServerEvent::RegistrationLost { routes, .. } => {
                tasks.push(ServerTask::Log(Box::new(Note::RegistrationLost(routes))));
            }
            // With a monitor, an outage is logged once, and not once for each subscription.
            ServerEvent::Gap { lost: None, .. } if self.is_monitored => {}
            // The remaining events are only logged.
            event => tasks.extend(Note::of_server(event).map(Box::new).map(ServerTask::Log)),
        }
    }

    fn on_bus_event(&mut self, _: &mut Engine, _: Now, event: BusEvent, tasks: &mut Vec<ServerTask>) {
        tasks.extend(self.watch.as_ref().map(|watch| ServerTask::Observe(watch.on_bus_event(&event))));
        tasks.extend(Note::of_bus(&event).map(Box::new).map(ServerTask::Log));
    }

    fn perform(driver: &Arc<Driver<Self>>, task: ServerTask, decisions: &mut Vec<Decision>) {
        match task {
            ServerTask::Wake(waker) => waker.wake(),
            ServerTask::Observe(observed) => observed.deliver(Side::Server, &*driver.runtime),
            ServerTask::Log(note) => {
                let (service, id) =
                    driver.with_state(|state| (state.engine.service().clone(), state.engine.id().clone()));
                note.write(Side::Server, &service, &id);
            }
            ServerTask::Cancel(token) => token.cancel(),
            ServerTask::Stream(task) => driver.perform_stream_task(task),
            ServerTask::Serve { label, stream, key, open, codec, token } => {
                let server = Arc::clone(driver);
                let end = DriverEnd::at_server(Arc::clone(driver), stream, key, Arc::clone(&codec));
                let opened = guard::catch(|| open(end)).unwrap_or_else(|panicked| {
                    log::panicked(Side::Server, "a stream interceptor", Some(&label), &panicked);
                    Err(Error::new(ErrorCode::Internal, "an interceptor panicked"))
                });
                let start = match opened {
                    Ok(start) => start,
                    Err(error) => {
                        codec.closed(&error);
                        return driver.handler_done(stream, key, Err(error));
                    }
                };
                codec.opened();
                let running = RunningHandler::new(label, start, token);
                driver.runtime.spawn(Box::pin(async move {
                    // The result of a canceled handler is not used.
                    let result = running.await.unwrap_or(Ok(()));
                    server.handler_done(stream, key, result);
                }));
            }
            ServerTask::Discard(admitted) => drop(guard::catch(|| drop(admitted))),
            ServerTask::Admit(received, handlers) if received.payload.len() >= LARGE => {
                let server = Arc::clone(driver);
                driver.runtime.spawn(Box::pin(async move {
                    server.carry_out_all(&mut vec![decide(&server, received, &handlers)]);
                }));
            }
            ServerTask::Admit(received, handlers) => decisions.push(decide(driver, received, &handlers)),
            ServerTask::Run(request, running) => {
                let server = Arc::clone(driver);
                driver.runtime.spawn(Box::pin(async move {
                    if let Some(result) = running.await {
                        let result = result.map_err(Error::into_response);
                        let stage = server.execute(|state, now| {
                            state.engine.respond(now, request, result);
                            state.role.take(request)
                        });
                        drop(stage);
                    }
                }));
            }
        }
    }

    fn carry_out(state: &mut DriverState<Self>, now: Now, (request, decided): Decision) -> Option<Decision> {
        let DriverState { engine, role, .. } = state;
        match decided {
            // The request may have been granted to another server, or have expired.
            Ok(_) if !engine.is_waiting(request) => return Some((request, decided)),
            Ok(admitted) => {
                let Admitted { affinity, skips_claim, .. } = admitted;
                if let Some(watch) = &mut role.watch {
                    watch.on_bid(now.time, request, skips_claim);
                }
                role.put(request, RequestStage::Admitted(admitted));
                match skips_claim {
                    true => engine.skip_claim(now, request),
                    false => engine.bid(now, request, affinity),
                }
            }
            Err(error) => engine.reject(now, request, error),
        }
        None
    }

    fn is_finished(&self) -> bool {
        self.closed
    }
}

/// Decodes a request and computes its affinity.
fn decide(driver: &Driver<ServerRole>, received: Received, handlers: &HandlerMap) -> Decision {
    let request = received.request;
    let handler =
        handlers.get(received.route.method().as_str()).expect("only methods with a handler are registered");
    (request, handler.admit(received, &driver.runtime).map_err(Error::into_response))
}

impl ServerRole {
    pub(super) fn new(handlers: HandlerMap, watch: Option<Watch>, is_monitored: bool) -> Self {
        Self { handlers: Arc::new(handlers), watch, is_monitored, ..Self::default() }
    }

    fn put(&mut self, request: RequestHandle, stage: RequestStage) {
        if self.requests.len() <= request.index() {
            self.requests.resize_with(request.index() + 1, || None);
        }
        self.requests[request.index()] = Some((request, stage));
    }

    fn take(&mut self, request: RequestHandle) -> Option<RequestStage> {
        // The handler of an abandoned request may end after its slot was reused.
        let slot = self.requests.get_mut(request.index())?;
        slot.take_if(|(handle, _)| *handle == request).map(|(_, stage)| stage)
    }

    pub(super) fn add_registration(
        &mut self,
        registration: RegistrationHandle,
        register_result: Arc<RegisterResult>,
        guard: SingleServerGuard,
    ) {
        let registered =
            Registration { register_result: Some(register_result), waiting: Vec::new(), _guard: guard };
        self.registrations.insert(registration, registered);
    }

    fn remove_registration(&mut self, registration: RegistrationHandle, tasks: &mut Vec<ServerTask>) {
        if let Some(removed) = self.registrations.remove(&registration) {
            tasks.extend(removed.waiting.into_iter().map(ServerTask::Wake));
        }
    }

    pub(super) fn poll_registered(
        &mut self,
        engine: &Engine,
        registration: RegistrationHandle,
        register_result: &RegisterResult,
        cx: &Context<'_>,
    ) -> Poll<Result<(), Error>> {
        match (register_result.get(), self.registrations.get_mut(&registration)) {
            (Some(result), _) => Poll::Ready(Ok(result.clone()?)),
            (None, Some(registration)) => {
                waiting::wait(&mut registration.waiting, cx);
                Poll::Pending
            }
            (None, None) if engine.is_abandoned() => Poll::Ready(Err(RegisterError::RuntimeEnded.into())),
            (None, None) => Poll::Ready(Err(RegisterError::Closed.into())),
        }
    }

    pub(super) fn poll_deregistered(
        &mut self,
        registration: RegistrationHandle,
        cx: &Context<'_>,
    ) -> Poll<()> {
        match self.registrations.get_mut(&registration) {
            Some(registration) => {
                waiting::wait(&mut registration.waiting, cx);
                Poll::Pending
            }
            None => Poll::Ready(()),
        }
    }

    pub(super) fn poll_closed(&mut self, cx: &Context<'_>) -> Poll<()> {
        if self.closed {
            return Poll::Ready(());
        }
        waiting::wait(&mut self.waiting_for_close, cx);
        Poll::Pending
    }
}

impl StreamRole for ServerRole {
    fn streams(&mut self) -> &mut StreamTable {
        &mut self.streams
    }
}
