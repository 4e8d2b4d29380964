//! The caller: who uses a client. Makes calls of every kind, chooses servers, cancels, and closes.

use std::collections::BTreeMap;
use std::time::Duration;

use psrpc_engine::proto::{ErrorCode, ErrorResponse, Frame, Text};
use psrpc_engine::{Call, CallHandle, Claim, Client, ClientEvent, Now, Route, Selection};

use crate::check::{Called, Checked, Fact};
use crate::fault::Fault;
use crate::happening::{Happening, NodeId};
use crate::node::User;
use crate::payload;
use crate::rng::Rng;
use crate::world::World;

/// The user of one client.
pub(crate) struct Caller {
    client: usize,
    routes: Vec<Route>,
    /// How long a call takes at most that does not say so itself.
    timeout: Duration,
    /// The number of every call made.
    calls: BTreeMap<CallHandle, usize>,
    phase: Phase,
    rng: Rng,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Starting,
    Open,
    Closing,
    Closed,
}

/// What a caller does at some moment.
pub(crate) enum CallerAct {
    Call,
    Cancel(CallHandle),
    Select(CallHandle, Choice),
    Close,
}

/// The answer of a selection function.
type Choice = Result<Option<Text>, ErrorResponse>;

impl Caller {
    pub(crate) fn new(client: usize, routes: Vec<Route>, timeout: Duration, rng: Rng) -> Self {
        Self { client, routes, timeout, calls: BTreeMap::new(), phase: Phase::Starting, rng }
    }

    pub(crate) fn act(
        &mut self,
        engine: &mut Client,
        now: Now,
        world: &mut World,
        act: CallerAct,
    ) -> Checked {
        match act {
            CallerAct::Call => {
                let call = self.any_call(now, world);
                self.call(engine, now, world, call)
            }
            CallerAct::Cancel(handle) => self.cancel(engine, now, world, handle, false),
            CallerAct::Select(handle, choice) => {
                world.stage.log(self.id(), format_args!("selects {choice:?} for {handle:?}"));
                engine.select(now, handle, choice);
                Ok(())
            }
            CallerAct::Close => {
                world.stage.faults.count(Fault::Close);
                world.stage.log(self.id(), "closes");
                self.phase = Phase::Closing;
                engine.close(now);
                world.note(Fact::Closed { client: self.client })
            }
        }
    }

    /// Makes a fresh call of `route`, with nothing special about it.
    pub(crate) fn probe(
        &mut self,
        engine: &mut Client,
        now: Now,
        world: &mut World,
        route: &Route,
    ) -> Checked {
        if self.phase != Phase::Open {
            return Ok(());
        }
        let payload = payload::question(world.model.calls(), true);
        self.call(engine, now, world, Call::new(route.clone(), payload))
    }

    fn call(&mut self, engine: &mut Client, now: Now, world: &mut World, call: Call) -> Checked {
        let at_most = now.time + call.timeout.unwrap_or(self.timeout);
        let deadline = call.deadline.map_or(at_most, |deadline| deadline.min(at_most));
        let remaining = deadline.since(now.time);
        let properties = call.route.properties();
        world.stage.log(self.id(), format_args!("calls {} for {remaining:?}", call.route));
        let handle = match engine.call(now, call) {
            Ok(handle) => handle,
            Err(error) => {
                world.stage.log(self.id(), error);
                return Ok(());
            }
        };
        self.calls.insert(handle, world.model.calls());
        world.note(Fact::Called(Called {
            client: self.client,
            properties,
            deadline: world.stage.now() + remaining,
            expiry: now.wall + remaining,
            must_succeed: world.is_calm(),
        }))?;
        if world.stage.faults.strikes(Fault::Cancel, &mut self.rng) {
            let delay = self.rng.grains(0..400);
            world.stage.after(delay, Happening::Caller(self.client, CallerAct::Cancel(handle)));
        }
        Ok(())
    }

    fn any_call(&mut self, now: Now, world: &World) -> Call {
        let rng = &mut self.rng;
        let route = rng.pick(&self.routes);
        let payload = payload::question(world.model.calls(), !rng.chance(50));
        let timeout = match rng.below(20) {
            0 => Some(Duration::ZERO),
            1..=3 => Some(rng.grains(1..40)),
            4..=12 => Some(rng.grains(40..2000)),
            13..=17 => Some(rng.grains(2000..12_000)),
            _ => None,
        };
        let deadline = rng.maybe(50, |rng| now.time + rng.grains(0..400));
        let selection = any_selection(rng, &route);
        Call { timeout, deadline, selection, ..Call::new(route, payload) }
    }

    fn cancel(
        &mut self,
        engine: &mut Client,
        now: Now,
        world: &mut World,
        handle: CallHandle,
        in_company: bool,
    ) -> Checked {
        world.stage.log(self.id(), format_args!("cancels {handle:?}"));
        engine.cancel(now, handle);
        match self.calls.get(&handle) {
            Some(call) => world.note(Fact::Canceled { call: *call, in_company }),
            None => Ok(()),
        }
    }

    fn choose(&mut self, claims: &[Claim]) -> Choice {
        let rng = &mut self.rng;
        match rng.below(10) {
            0 => Ok(None),
            1 => Ok(Some("SRV_stranger".into())),
            2 => Err(ErrorResponse::new(ErrorCode::FailedPrecondition, "cannot choose")),
            _ if claims.is_empty() => Ok(None),
            _ => Ok(Some(rng.pick(claims).server_id)),
        }
    }

    fn id(&self) -> NodeId {
        NodeId::Client(self.client)
    }
}

/// Options that the method allows.
fn any_selection(rng: &mut Rng, route: &Route) -> Selection {
    let accept_first_available = rng.maybe(100, |rng| rng.chance(300));
    if !route.properties().affinity() {
        return Selection { accept_first_available, ..Selection::default() };
    }
    let patience = |rng: &mut Rng| rng.maybe(800, |rng| rng.grains(1..400)).unwrap_or_default();
    let base = if rng.chance(100) { Selection::none() } else { Selection::default() };
    Selection {
        minimum_affinity: rng.maybe(250, |rng| rng.pick(&[0.25, 0.5, 1.0, 1.5])).or(base.minimum_affinity),
        maximum_affinity: rng.maybe(250, |rng| rng.pick(&[0.5, 0.75, 1.0])).or(base.maximum_affinity),
        accept_first_available: accept_first_available.or(base.accept_first_available),
        affinity_timeout: rng.maybe(300, patience).or(base.affinity_timeout),
        short_circuit_timeout: rng.maybe(300, patience).or(base.short_circuit_timeout),
        ask: rng.chance(200),
    }
}

impl User<Client> for Caller {
    fn on_event(&mut self, engine: &mut Client, now: Now, world: &mut World, event: ClientEvent) -> Checked {
        match event {
            ClientEvent::Ready => self.phase = Phase::Open,
            ClientEvent::Closed { .. } => self.phase = Phase::Closed,
            ClientEvent::Select { call, claims } => {
                let choice = self.choose(&claims);
                if self.rng.chance(500) {
                    engine.select(now, call, choice);
                } else {
                    let select = Happening::Caller(self.client, CallerAct::Select(call, choice));
                    world.stage.after(self.rng.grains(0..200), select);
                }
            }
            ClientEvent::Resolved { call, outcome } => {
                let name = outcome.as_ref().map_or_else(|failure| failure.reason.as_str(), |_| "answered");
                *world.stage.outcomes.entry(name).or_default() += 1;
                let call = self.calls.get(&call).copied();
                return world.note(Fact::Resolved { call, outcome: &outcome });
            }
            _ => {}
        }
        Ok(())
    }

    fn on_frame(&mut self, world: &mut World, frame: &Frame) -> Checked {
        world.note(Fact::ClientHeard(frame))
    }

    /// Now and then cancels the very call that a bid came in for.
    fn interject(&mut self, engine: &mut Client, now: Now, world: &mut World, frame: &Frame) -> Checked {
        let Frame::ClaimRequest(bid) = frame else { return Ok(()) };
        let Some(number) = world.model.call_of(&bid.request_id) else { return Ok(()) };
        if !world.stage.faults.strikes(Fault::HastyCancel, &mut self.rng) {
            return Ok(());
        }
        let handle = self.calls.iter().find(|(_, call)| **call == number).map(|(handle, _)| *handle);
        handle.map_or(Ok(()), |handle| self.cancel(engine, now, world, handle, true))
    }

    fn held(engine: &Client) -> (usize, usize) {
        (engine.in_flight(), 0)
    }

    fn is_closed(&self) -> bool {
        self.phase == Phase::Closed
    }
}
