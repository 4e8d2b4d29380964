//! The host: who uses a server. Bids, elects, declines, rejects, and runs handlers that take their time or fail.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use psrpc_engine::proto::{ErrorCode, ErrorResponse, Frame, Text};
use psrpc_engine::{Now, Reason, Received, RequestHandle, Route, Server, ServerEvent};

use crate::check::{Checked, Fact, Run};
use crate::fault::Fault;
use crate::happening::{Happening, NodeId};
use crate::node::User;
use crate::payload;
use crate::rng::Rng;
use crate::world::World;

/// The user of one server.
pub(crate) struct Host {
    server: usize,
    /// The server's id on the wire.
    id: Text,
    /// Its methods, as they are registered together.
    registrations: Vec<Vec<Route>>,
    allowance: Duration,
    habits: Habits,
    jobs: BTreeMap<RequestHandle, Job>,
    phase: Phase,
    rng: Rng,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// So many registrations are not live yet.
    Joining(usize),
    Serving,
    Leaving,
    Closed,
}

/// How likely a host does something, in permille.
struct Habits {
    rejects: u64,
    elects: u64,
    declines: u64,
    dawdles: u64,
}

/// A request that is not answered yet.
struct Job {
    request_id: Text,
    sound: bool,
}

/// What a host does at some moment.
pub(crate) enum HostAct {
    Decide(RequestHandle),
    Finish(RequestHandle),
}

impl Host {
    pub(crate) fn new(
        server: usize,
        id: Text,
        registrations: Vec<Vec<Route>>,
        allowance: Duration,
        mut rng: Rng,
    ) -> Self {
        let habits = Habits {
            rejects: rng.pick(&[0, 0, 100]),
            elects: rng.pick(&[0, 300, 1000]),
            declines: rng.pick(&[0, 0, 150]),
            dawdles: rng.pick(&[0, 50, 200]),
        };
        let (jobs, phase) = (BTreeMap::new(), Phase::Joining(registrations.len()));
        Self { server, id, registrations, allowance, habits, jobs, phase, rng }
    }

    /// Registers its methods.
    pub(crate) fn start(&mut self, engine: &mut Server) {
        for routes in &self.registrations {
            engine.register(routes.clone()).expect("the routes are sound");
        }
    }

    /// Whether calls of `route` can find it.
    pub(crate) fn serves(&self, route: &Route) -> bool {
        self.phase == Phase::Serving && self.registrations.iter().flatten().any(|served| served == route)
    }

    /// It is about to be shut down.
    pub(crate) fn leave(&mut self) {
        self.phase = Phase::Leaving;
    }

    pub(crate) fn act(&mut self, engine: &mut Server, now: Now, world: &mut World, act: HostAct) -> Checked {
        match act {
            HostAct::Decide(request) => self.decide(engine, now, world, request),
            HostAct::Finish(request) => self.finish(engine, now, world, request),
        }
    }

    fn decide(
        &mut self,
        engine: &mut Server,
        now: Now,
        world: &mut World,
        request: RequestHandle,
    ) -> Checked {
        // Without a job the request is over, its handle stale, and nothing must come of what is done with it.
        let sound = self.jobs.get(&request).is_none_or(|job| job.sound);
        if !sound || !world.is_calm() && self.rng.chance(self.habits.rejects) {
            let error = ErrorResponse::new(ErrorCode::MalformedRequest, "cannot decode");
            self.answered(world, request, Err(error.clone()))?;
            world.stage.log(self.node(), format_args!("rejects {request:?}"));
            engine.reject(now, request, error);
        } else if self.rng.chance(self.habits.elects) {
            world.stage.log(self.node(), format_args!("elects {request:?}"));
            if let Some(Job { request_id, .. }) = self.jobs.get(&request) {
                world.note(Fact::Elected { server: &self.id, request: request_id })?;
            }
            engine.elect(now, request);
        } else {
            let affinity = self.affinity(world.is_calm());
            world.stage.log(self.node(), format_args!("bids {affinity} for {request:?}"));
            engine.bid(now, request, affinity);
        }
        Ok(())
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

    fn run(&mut self, engine: &mut Server, now: Now, world: &mut World, request: RequestHandle) -> Checked {
        let Some(job) = self.jobs.get(&request) else {
            return world.note(Fact::Ran(self.run_of(&Text::EMPTY, now)));
        };
        world.note(Fact::Ran(self.run_of(&job.request_id, now)))?;
        let rng = &mut self.rng;
        let takes = if !world.is_calm() && rng.chance(self.habits.dawdles) {
            // Some never come to an end.
            let Some(takes) = rng.maybe(800, |rng| rng.grains(400..16_000)) else { return Ok(()) };
            takes
        } else if rng.chance(300) {
            return self.finish(engine, now, world, request);
        } else {
            rng.grains(0..100)
        };
        world.stage.after(takes, Happening::Host(self.server, HostAct::Finish(request)));
        Ok(())
    }

    fn run_of<'a>(&'a self, request: &'a Text, now: Now) -> Run<'a> {
        Run { server: &self.id, request, wall: now.wall, allowance: self.allowance }
    }

    fn finish(
        &mut self,
        engine: &mut Server,
        now: Now,
        world: &mut World,
        request: RequestHandle,
    ) -> Checked {
        // As in `decide`, the request may be over.
        let said = self
            .jobs
            .get(&request)
            .map_or_else(|| "stale".to_owned(), |job| payload::answer(&job.request_id, &self.id));
        let result = self.result(said, world.is_calm());
        self.answered(world, request, result.clone())?;
        world.stage.log(self.node(), format_args!("answers {request:?}"));
        engine.respond(now, request, result);
        Ok(())
    }

    fn result(&mut self, said: String, calm: bool) -> Result<Bytes, ErrorResponse> {
        let rng = &mut self.rng;
        let error = |code, text| Err(ErrorResponse::new(code, text));
        match rng.below(30) {
            _ if calm => Ok(said.into()),
            0 => Ok(Bytes::new()),
            1 => error(ErrorCode::Internal, said),
            2 => error(ErrorCode::Other("hat_on_fire".into()), said),
            3 => error(ErrorCode::NotFound, String::new()),
            4 => error(ErrorCode::Other(Text::EMPTY), said),
            5 => error(ErrorCode::Other(Text::EMPTY), String::new()),
            _ => Ok(said.into()),
        }
    }

    fn answered(
        &mut self,
        world: &mut World,
        request: RequestHandle,
        result: Result<Bytes, ErrorResponse>,
    ) -> Checked {
        match self.jobs.remove(&request) {
            Some(job) => world.note(Fact::Answered { server: &self.id, request: &job.request_id, result }),
            None => Ok(()),
        }
    }

    fn node(&self) -> NodeId {
        NodeId::Server(self.server)
    }
}

impl User<Server> for Host {
    fn on_event(&mut self, engine: &mut Server, now: Now, world: &mut World, event: ServerEvent) -> Checked {
        match event {
            ServerEvent::Registered { result: Ok(()), .. } => {
                self.phase = match self.phase {
                    Phase::Joining(missing) if missing > 1 => Phase::Joining(missing - 1),
                    Phase::Joining(_) => Phase::Serving,
                    phase => phase,
                };
            }
            ServerEvent::Closed => self.phase = Phase::Closed,
            ServerEvent::Received(Received { request, request_id, payload, .. }) => {
                let sound = payload::is_sound(&payload);
                self.jobs.insert(request, Job { request_id, sound });
                if world.is_calm() || self.rng.chance(700) {
                    return self.decide(engine, now, world, request);
                }
                let delay = self.rng.grains(0..80);
                world.stage.after(delay, Happening::Host(self.server, HostAct::Decide(request)));
            }
            ServerEvent::Run { request } => return self.run(engine, now, world, request),
            ServerEvent::Abandoned { request, reason } => {
                if reason == Reason::Overran {
                    world.stage.faults.count(Fault::Overrun);
                }
                self.jobs.remove(&request);
            }
            _ => {}
        }
        Ok(())
    }

    fn on_frame(&mut self, world: &mut World, frame: &Frame) -> Checked {
        world.note(Fact::ServerHeard(&self.id, frame))
    }

    fn held(engine: &Server) -> (usize, usize) {
        (engine.in_flight(), engine.remembered())
    }

    fn is_closed(&self) -> bool {
        self.phase == Phase::Closed
    }
}
