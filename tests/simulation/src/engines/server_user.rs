//! The user of a server: bids, skips the claim, declines, rejects, runs handlers that are slow or
//! fail, and publishes updates.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use psrpc_engine::proto::{Any, ErrorCode, ErrorResponse, Frame, Request, Stream, StreamBody, Text};
use psrpc_engine::{
    Dropped, Engine, Now, Reason, Received, RegistrationHandle, RequestHandle, Route, Server, ServerConfig,
    ServerEvent, ServerLimits, StreamEvent, StreamHandle, Time, UpdateHandle, WallTime,
};

use super::engine_node::{EngineUser, Moment};
use super::engine_run_event::EngineRunEvent;
use super::engine_world::EngineWorld;
use super::methods::NEWS;
use super::stream_user::StreamUser;
use super::user_act::ServerAct;
use crate::fault::Fault;
use crate::judge::fact;
use crate::judge::fact::{Fact, HandlerStart, Operation, OperationKind, TableSize};
use crate::judge::payload;
use crate::judge::violation::{Checked, Invariant};
use crate::node_id::NodeId;
use crate::rng::Rng;

/// The user of one server.
pub(crate) struct ServerUser {
    server: usize,
    /// The id of the server on the wire.
    id: Text,
    /// Its registrations and their state.
    registrations: BTreeMap<RegistrationHandle, Registration>,
    config: ServerConfig,
    habits: Habits,
    jobs: BTreeMap<RequestHandle, Job>,
    /// Every request that the engine has reported, by its client and its id.
    received: BTreeSet<(Text, Text)>,
    /// The last request with a response, and its deadline.
    last_response: Option<(RequestHandle, Time)>,
    updates: BTreeMap<UpdateHandle, usize>,
    stream_user: StreamUser,
    /// The request that the engine is about to handle, and its expiry by the client's clock.
    incoming: Option<(Text, WallTime)>,
    phase: Phase,
    /// The latest deadline of all accepted requests and published updates.
    latest_deadline: Time,
    rng: Rng,
}

struct Registration {
    routes: Vec<Route>,
    is_live: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Serving,
    /// The server has been draining since `since`. It must close by `until` or by the latest
    /// deadline of its requests and updates, whichever is later. All times are by its own clock.
    Draining {
        since: Time,
        until: Time,
    },
    Killed,
    Closed,
}

/// The probability of each behaviour of the user, in permille.
struct Habits {
    rejects: u64,
    skips_claim: u64,
    declines: u64,
    slow_handlers: u64,
}

/// A request that has no response yet.
struct Job {
    request_id: Text,
    sound: bool,
    deadline: Time,
}

impl ServerUser {
    pub(crate) fn new(server: usize, id: Text, config: &ServerConfig, mut rng: Rng) -> Self {
        let habits = Habits {
            rejects: rng.pick(&[0, 0, 100]),
            skips_claim: rng.pick(&[0, 300, 1000]),
            declines: rng.pick(&[0, 0, 150]),
            slow_handlers: rng.pick(&[0, 50, 200]),
        };
        Self {
            server,
            id,
            registrations: BTreeMap::new(),
            config: config.clone(),
            habits,
            jobs: BTreeMap::new(),
            received: BTreeSet::new(),
            last_response: None,
            updates: BTreeMap::new(),
            stream_user: StreamUser::new(NodeId::Server(server), config, rng.fork()),
            incoming: None,
            phase: Phase::Serving,
            latest_deadline: Time::ZERO,
            rng,
        }
    }

    /// Returns `true` if calls of `route` can reach it.
    pub(crate) fn serves(&self, route: &Route) -> bool {
        let has = |registration: &Registration| registration.is_live && registration.routes.contains(route);
        self.phase == Phase::Serving && self.registrations.values().any(has)
    }

    /// Checks at the end of a run that a draining server has shut down.
    pub(crate) fn check_stopped(&self) -> Checked {
        match self.phase {
            Phase::Draining { .. } => Invariant::I14.violated(format!("{} has not shut down", self.node())),
            _ => Ok(()),
        }
    }

    fn node(&self) -> NodeId {
        NodeId::Server(self.server)
    }

    fn fact_server(&self) -> fact::Server<'_> {
        fact::Server { id: &self.id, incarnation: self.server }
    }

    fn schedule(&mut self, world: &mut EngineWorld, grains: u64, act: ServerAct) {
        let delay = self.rng.grains(0..grains);
        world.scene.schedule_after(delay, EngineRunEvent::Server(self.server, act));
    }

    // --- registrations and shutdown --------------------------------------------------------------

    fn register(&mut self, engine: &mut Server, routes: Vec<Route>) -> Checked {
        if self.phase != Phase::Serving {
            return Ok(());
        }
        match engine.register(routes.clone()) {
            Ok(registration) => {
                self.registrations.insert(registration, Registration { routes, is_live: false });
            }
            Err(error) => {
                return Invariant::I9.violated(format!("{}: cannot register again: {error}", self.node()));
            }
        }
        Ok(())
    }

    fn registered(
        &mut self,
        world: &mut EngineWorld,
        registration: RegistrationHandle,
        is_live: bool,
    ) -> Checked {
        if !is_live {
            self.retry_registration(world, registration);
            return Ok(());
        }
        if let Some(registration) = self.registrations.get_mut(&registration) {
            registration.is_live = true;
        }
        let all = self.registrations.values().all(|registration| registration.is_live);
        if all { world.all_live(self.node()) } else { Ok(()) }
    }

    /// Schedules another attempt to register, after the bus has refused or ended a subscription of
    /// a registration.
    fn retry_registration(&mut self, world: &mut EngineWorld, registration: RegistrationHandle) {
        if let Some(Registration { routes, .. }) = self.registrations.remove(&registration) {
            self.schedule(world, 200, ServerAct::Register(routes));
        }
    }

    fn stop(&mut self, engine: &mut Server, now: Now, world: &mut EngineWorld, fault: Fault) {
        if self.phase == Phase::Closed {
            return;
        }
        world.scene.log(self.node(), fault.name());
        if fault == Fault::Kill {
            self.phase = Phase::Killed;
            engine.kill(now);
        } else {
            let patience = self.config.drain_timeout.max(self.config.linger);
            self.phase = Phase::Draining { since: now.time, until: now.time + patience };
            engine.drain(now);
        }
    }

    /// Checks that no accepted request was lost, and that the shutdown did not take too long (I14).
    fn closed(&mut self, now: Now) -> Checked {
        if let Phase::Draining { until, .. } = std::mem::replace(&mut self.phase, Phase::Closed) {
            let until = until.max(self.latest_deadline);
            // A fast clock skips a nanosecond now and then.
            if now.time > until + Duration::from_nanos(1) {
                return Invariant::I14.violated(format!(
                    "{} shut down {:?} too late",
                    self.node(),
                    now.time.since(until)
                ));
            }
            if let Some(job) = self.jobs.values().find(|job| job.deadline > now.time) {
                return Invariant::I14.violated(format!("{} has lost {}", self.node(), job.request_id));
            }
        }
        Ok(())
    }

    // --- requests --------------------------------------------------------------------------------

    fn received(
        &mut self,
        engine: &mut Server,
        moment: Moment,
        world: &mut EngineWorld,
        received: Received,
    ) -> Checked {
        let Received { request, request_id, client_id, payload, metadata, deadline, opens_stream, .. } =
            received;
        let payload = if opens_stream { payload::payload_of_opening(&metadata) } else { Some(payload) };
        let sound = payload.is_none_or(|payload| payload::is_sound(&payload));
        self.latest_deadline = self.latest_deadline.max(deadline);
        if !self.received.insert((client_id, request_id.clone())) {
            return Invariant::I2.violated(format!("{} accepted {request_id} twice", self.node()));
        }
        self.jobs.insert(request, Job { request_id, sound, deadline });
        if world.is_calm() || self.rng.chance(700) {
            return self.decide(engine, moment, world, request);
        }
        self.schedule(world, 80, ServerAct::Decide(request));
        Ok(())
    }

    fn decide(
        &mut self,
        engine: &mut Server,
        moment: Moment,
        world: &mut EngineWorld,
        request: RequestHandle,
    ) -> Checked {
        let now = moment.now;
        // Without a job the request is over and its handle stale. The engine must ignore it.
        let sound = self.jobs.get(&request).is_none_or(|job| job.sound);
        let id = self.request_id(request);
        if !sound || !world.is_calm() && self.rng.chance(self.habits.rejects) {
            let error = ErrorResponse::new(ErrorCode::MalformedRequest, "cannot decode");
            self.note_response(world, request, Err(error.clone()))?;
            world.scene.log(self.node(), format_args!("rejects {id}"));
            engine.reject(now, request, error);
        } else if self.rng.chance(self.habits.skips_claim) {
            world.scene.log(self.node(), format_args!("skips the claim of {id}"));
            if let Some(Job { request_id, .. }) = self.jobs.get(&request) {
                world.note(Fact::SkippedClaim { server: self.fact_server(), request: request_id })?;
            }
            engine.skip_claim(now, request);
        } else {
            let affinity = self.affinity(world.is_calm());
            world.scene.log(self.node(), format_args!("bids {affinity} for {id}"));
            engine.bid(now, request, affinity);
        }
        Ok(())
    }

    /// Returns the id of a request, or an empty text if it is over.
    fn request_id(&self, request: RequestHandle) -> Text {
        self.jobs.get(&request).map_or(Text::EMPTY, |job| job.request_id.clone())
    }

    fn affinity(&mut self, calm: bool) -> f32 {
        let rng = &mut self.rng;
        if calm {
            return rng.pick(&[0.25, 0.5, 1.0]);
        }
        if rng.chance(self.habits.declines) {
            return rng.pick(&[-1.0, f32::NAN, f32::INFINITY]);
        }
        rng.pick(&[0.0, 0.25, 0.5, 0.75, 1.0])
    }

    fn note_start(&self, moment: Moment, world: &mut EngineWorld, request: RequestHandle) -> Checked {
        let (server, wall, allowance) = (self.fact_server(), moment.now.wall, self.config.skew_allowance);
        let request = &self.request_id(request);
        world.scene.log(self.node(), format_args!("runs {request}"));
        world.note(Fact::HandlerStarted(HandlerStart { server, request, wall, allowance }))
    }

    fn run(
        &mut self,
        engine: &mut Server,
        moment: Moment,
        world: &mut EngineWorld,
        request: RequestHandle,
    ) -> Checked {
        self.note_start(moment, world, request)?;
        let rng = &mut self.rng;
        let duration = if !world.is_calm() && rng.chance(self.habits.slow_handlers) {
            // Some handlers never end.
            let Some(duration) = rng.maybe(800, |rng| rng.grains(400..16_000)) else { return Ok(()) };
            duration
        } else if rng.chance(300) {
            return self.finish(engine, moment, world, request);
        } else {
            rng.grains(0..100)
        };
        world.scene.schedule_after(duration, EngineRunEvent::Server(self.server, ServerAct::Finish(request)));
        Ok(())
    }

    fn finish(
        &mut self,
        engine: &mut Server,
        moment: Moment,
        world: &mut EngineWorld,
        request: RequestHandle,
    ) -> Checked {
        // As in `decide`, the request may be over.
        let payload = self
            .jobs
            .get(&request)
            .map_or_else(|| "stale".to_owned(), |job| payload::response(&job.request_id, &self.id));
        let result = self.result(payload, world.is_calm());
        world.scene.log(self.node(), format_args!("responds to {}", self.request_id(request)));
        self.note_response(world, request, result.clone())?;
        engine.respond(moment.now, request, result);
        Ok(())
    }

    fn result(&mut self, payload: String, calm: bool) -> Result<Bytes, ErrorResponse> {
        let rng = &mut self.rng;
        let error = |code, text| Err(ErrorResponse::new(code, text));
        match rng.below(30) {
            _ if calm => Ok(payload.into()),
            0 => Ok(Bytes::new()),
            1 => error(ErrorCode::Internal, payload),
            2 => error(ErrorCode::Other("hat_on_fire".into()), payload),
            3 => error(ErrorCode::NotFound, String::new()),
            4 => error(ErrorCode::Other(Text::EMPTY), payload),
            5 => error(ErrorCode::Other(Text::EMPTY), String::new()),
            _ => Ok(payload.into()),
        }
    }

    fn note_response(
        &mut self,
        world: &mut EngineWorld,
        request: RequestHandle,
        result: Result<Bytes, ErrorResponse>,
    ) -> Checked {
        match self.jobs.remove(&request) {
            Some(job) => {
                self.last_response = Some((request, job.deadline));
                world.note(Fact::Responded { server: self.fact_server(), request: &job.request_id, result })
            }
            None => Ok(()),
        }
    }

    /// Checks that the reason for a dropped frame is true.
    fn dropped(&mut self, moment: Moment, world: &EngineWorld, dropped: &Dropped) -> Checked {
        let incoming = self.incoming.as_ref().filter(|(request_id, _)| *request_id == dropped.request_id);
        let expires = incoming.map(|(_, expiry)| *expiry + self.config.skew_allowance);
        match (dropped.reason, self.phase) {
            // Once the wall clock has reached the expiry, the request may count as expired even if
            // the clock is set back.
            (Reason::Expired, _) if expires.is_some_and(|expires| moment.latest_wall < expires) => {
                Invariant::I16.violated(format!(
                    "{} dropped {} before it expired",
                    self.node(),
                    dropped.request_id
                ))
            }
            // The server must wait for frames that the bus still delivers.
            (Reason::Draining, Phase::Draining { since, .. })
                if moment.now.time < since + self.config.drain_timeout =>
            {
                Invariant::I14.violated(format!("{} dropped {}", self.node(), dropped.request_id))
            }
            _ => self.stream_user.dropped(moment, world, dropped),
        }
    }

    // --- streams and updates ---------------------------------------------------------------------

    /// Starts the handler of an accepted stream. The handler sends and receives, and may finish
    /// before the stream ends.
    fn accepted(
        &mut self,
        moment: Moment,
        world: &mut EngineWorld,
        request: RequestHandle,
        stream: StreamHandle,
    ) -> Checked {
        self.note_start(moment, world, request)?;
        let job = self.jobs.remove(&request);
        let number = job.and_then(|job| world.model.number_of(&job.request_id));
        self.stream_user.open(world, stream, number, false);
        let fresh = number.is_some_and(|number| world.model.is_fresh(number));
        if !fresh && self.rng.chance(400) || number.is_none() {
            self.schedule(world, 4000, ServerAct::FinishStream(stream));
        }
        Ok(())
    }

    fn publish(
        &mut self,
        engine: &mut Server,
        moment: Moment,
        world: &mut EngineWorld,
        route: usize,
        subscribers: Option<Vec<NodeId>>,
    ) -> Checked {
        let (number, fresh) = (world.model.operations(), subscribers.is_some());
        let type_url = format!("type.googleapis.com/{NEWS}").into();
        let message = Any { type_url, value: payload::message(number) };
        let timeout = if fresh { None } else { self.rng.maybe(500, |rng| rng.grains(0..2000)) };
        let route = &world.methods.updates[route];
        let queue = route.is_queue();
        match engine.publish(moment.now, route, message, timeout) {
            Ok(update) => {
                world.scene.log(NodeId::Server(self.server), format_args!("publishes update {number}"));
                self.updates.insert(update, number);
                let kind = OperationKind::Update { subscribers: subscribers.unwrap_or_default(), queue };
                let timeout = timeout.unwrap_or(self.config.timeout);
                self.latest_deadline = self.latest_deadline.max(moment.now.time + timeout);
                let deadline = moment.due(timeout);
                let grace = Duration::ZERO;
                world.note(Fact::Started(Operation {
                    node: self.node(),
                    kind,
                    deadline,
                    grace,
                    must_succeed: fresh,
                }))
            }
            Err(error) if fresh => {
                Invariant::I16.violated(format!("a fresh update cannot be published: {error}"))
            }
            Err(error) => {
                world.scene.log(self.node(), error);
                Ok(())
            }
        }
    }

    fn stream_event(
        &mut self,
        engine: &mut Server,
        moment: Moment,
        world: &mut EngineWorld,
        event: StreamEvent,
    ) -> Checked {
        if let StreamEvent::Ended { stream, .. } = &event {
            // The handler learns of the end, and finishes soon.
            let act = ServerAct::FinishStream(*stream);
            self.schedule(world, if world.is_calm() { 1 } else { 400 }, act);
        }
        self.stream_user.on_event(engine, moment, world, event)
    }
}

impl EngineUser<Server> for ServerUser {
    type Act = ServerAct;

    fn begin_step(&mut self, moment: Time) -> Checked {
        self.rng.reseed_at(moment);
        self.stream_user.begin_step(moment)
    }

    fn act(
        &mut self,
        engine: &mut Server,
        moment: Moment,
        world: &mut EngineWorld,
        act: ServerAct,
    ) -> Checked {
        match act {
            ServerAct::Register(routes) => return self.register(engine, routes),
            ServerAct::Decide(request) => return self.decide(engine, moment, world, request),
            ServerAct::Finish(request) => return self.finish(engine, moment, world, request),
            ServerAct::FinishStream(stream) => {
                let result = self.result(String::new(), world.is_calm()).map(|_| ());
                world.scene.log(self.node(), format_args!("finishes {stream:?}: {result:?}"));
                engine.finish_stream(moment.now, stream, result);
                self.stream_user.done(stream);
            }
            ServerAct::Publish(route, subscribers) => {
                return self.publish(engine, moment, world, route, subscribers);
            }
            ServerAct::Stream(act) => return self.stream_user.act(engine, moment, world, act),
            ServerAct::Leave(how) => self.stop(engine, moment.now, world, how),
            ServerAct::CloseStreams => self.stream_user.close_all(engine, moment.now),
        }
        Ok(())
    }

    fn on_event(
        &mut self,
        engine: &mut Server,
        moment: Moment,
        world: &mut EngineWorld,
        event: ServerEvent,
    ) -> Checked {
        match event {
            ServerEvent::Registered { registration, result } => {
                return self.registered(world, registration, result.is_ok());
            }
            ServerEvent::RegistrationLost { registration, .. } => {
                if let Some(registration) = self.registrations.get_mut(&registration) {
                    registration.is_live = false;
                }
            }
            ServerEvent::Deregistered { registration } => self.retry_registration(world, registration),
            ServerEvent::Closed => return self.closed(moment.now),
            ServerEvent::Received(received) => return self.received(engine, moment, world, received),
            ServerEvent::Run { request } => return self.run(engine, moment, world, request),
            ServerEvent::Accepted { request, stream } => {
                return self.accepted(moment, world, request, stream);
            }
            ServerEvent::Stream(event) => return self.stream_event(engine, moment, world, event),
            ServerEvent::StopHandler { stream } => self.stream_user.forget(stream),
            ServerEvent::Updated { update, outcome } => {
                let (number, outcome) = (self.updates.remove(&update), outcome.as_ref());
                let outcome = outcome.map(|_| ()).map_err(|failure| &**failure);
                return world.note(Fact::Ended { number, outcome });
            }
            ServerEvent::Abandoned { request, reason } => {
                let deadline = self.jobs.remove(&request).map(|job| job.deadline);
                if reason == Reason::Overran {
                    world.scene.faults.count(Fault::Overrun);
                    let last = self.last_response.filter(|(responded, _)| *responded == request);
                    let deadline = deadline.or(last.map(|(_, deadline)| deadline));
                    if deadline.is_some_and(|deadline| moment.now.time < deadline) {
                        return Invariant::I16.violated(format!("{} stopped a handler early", self.node()));
                    }
                }
            }
            ServerEvent::Dropped(dropped) => return self.dropped(moment, world, &dropped),
            _ => {}
        }
        Ok(())
    }

    fn is_detail(event: &ServerEvent) -> bool {
        use ServerEvent::{Accepted, Deregistered, Received, Registered, Run};
        // The trace has the frame that was received, and the act of the user that follows.
        matches!(event, Registered { .. } | Deregistered { .. } | Received(_) | Run { .. } | Accepted { .. })
    }

    fn on_frame(&mut self, moment: Moment, world: &mut EngineWorld, frame: &Frame) -> Checked {
        self.stream_user.on_frame(moment, world, frame);
        self.incoming = match frame {
            Frame::Request(Request { request_id, expiry, .. }) => {
                Some((request_id.clone(), WallTime::from_unix_nanos(*expiry)))
            }
            _ => None,
        };
        world.note(Fact::ServerReceived(self.fact_server(), frame, moment.now.time))
    }

    fn held(engine: &Server) -> usize {
        engine.held()
    }

    fn expects_event(&self, world: &EngineWorld, frame: &Frame) -> bool {
        let expects = match frame {
            Frame::Raw(_) => true,
            Frame::Stream(Stream { stream_id, body: Some(StreamBody::Message { .. }), .. }) => {
                world.model.number_of(stream_id).is_some_and(|number| self.stream_user.has(number))
            }
            _ => false,
        };
        expects && self.is_open()
    }

    fn on_pause(&mut self, until: Time) {
        if let Phase::Draining { until: closed, .. } = &mut self.phase {
            *closed = until.max(*closed);
        }
    }

    fn table_sizes(&self, engine: &Server) -> [TableSize; 6] {
        let ServerLimits { requests, remembered, updates, streams, .. } = self.config.limits;
        [
            TableSize { table: "requests in flight", count: engine.in_flight(), limit: requests },
            TableSize { table: "streams", count: engine.streams(), limit: streams.streams },
            TableSize { table: "messages held back", count: engine.held(), limit: streams.held },
            TableSize {
                table: "messages on their way",
                count: engine.sending(),
                limit: streams.streams * (streams.sends_per_stream + streams.waiting_per_stream),
            },
            TableSize { table: "updates", count: engine.publishing(), limit: updates },
            TableSize {
                table: "requests and messages remembered",
                count: engine.remembered(),
                limit: remembered + streams.remembered,
            },
        ]
    }

    fn is_open(&self) -> bool {
        self.phase == Phase::Serving
    }

    fn is_closed(&self) -> bool {
        self.phase == Phase::Closed
    }
}
