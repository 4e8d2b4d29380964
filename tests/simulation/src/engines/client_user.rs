//! The user of a client: makes calls of every kind, selects servers, subscribes, cancels, and
//! closes.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use psrpc_engine::proto::{ErrorCode, ErrorResponse, Frame, Stream, StreamBody};
use psrpc_engine::{
    Bid, Call, CallError, CallHandle, Client, ClientConfig, ClientEvent, Dropped, Failure, MultiCall,
    MultiHandle, Now, OpenStream, Reason, Route, Selection, SubscriptionHandle, Time, WallTime,
};

use super::engine_node::{EngineUser, Moment, UPDATE_SUBSCRIPTIONS};
use super::engine_run_event::EngineRunEvent;
use super::engine_world::EngineWorld;
use super::methods::NEWS;
use super::stream_user::StreamUser;
use super::user_act::{Choice, ClientAct, Probe};
use crate::fault::Fault;
use crate::judge::fact::{CallParameters, Fact, Operation, OperationKind, TableSize};
use crate::judge::payload;
use crate::judge::selection_rules::SelectionRules;
use crate::judge::violation::{Checked, Invariant, Violation};
use crate::node_id::NodeId;
use crate::rng::Rng;

/// The grace period of a call whose caller selects the server at the deadline: one timer tick, on a
/// clock that may be slow.
const CHOICE_GRACE: Duration = Duration::from_micros(1_100);

/// The user of one client.
pub(crate) struct ClientUser {
    client: usize,
    slot: usize,
    config: ClientConfig,
    /// The calls and openings of streams that have not ended, by their operation numbers.
    calls: BTreeMap<CallHandle, usize>,
    multi_calls: BTreeMap<MultiHandle, usize>,
    subscriptions: BTreeMap<SubscriptionHandle, UserSubscription>,
    stream_user: StreamUser,
    /// Whether the engine has reported the loss of an update, but not the gap yet.
    owes_gap: bool,
    phase: Phase,
    rng: Rng,
}

/// A subscription to the updates of a route.
struct UserSubscription {
    /// The index of the route among those with updates.
    route: usize,
    is_live: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Starting,
    Open,
    Closing,
    Closed,
}

impl ClientUser {
    pub(crate) fn new(client: usize, slot: usize, config: ClientConfig, mut rng: Rng) -> Self {
        Self {
            client,
            slot,
            calls: BTreeMap::new(),
            multi_calls: BTreeMap::new(),
            subscriptions: BTreeMap::new(),
            stream_user: StreamUser::new(NodeId::Client(client), &config, rng.fork()),
            config,
            owes_gap: false,
            phase: Phase::Starting,
            rng,
        }
    }

    /// Returns `true` if the client receives the updates of a route.
    pub(crate) fn is_subscribed(&self, route: usize) -> bool {
        let matches = |subscription: &UserSubscription| subscription.route == route && subscription.is_live;
        self.phase == Phase::Open && self.subscriptions.values().any(matches)
    }

    fn id(&self) -> NodeId {
        NodeId::Client(self.client)
    }

    fn schedule(&mut self, world: &mut EngineWorld, grains: u64, act: ClientAct) {
        let delay = self.rng.grains(0..grains);
        world.scene.schedule_after(delay, EngineRunEvent::Client(self.client, act));
    }

    // --- making calls ----------------------------------------------------------------------------

    /// Performs one random act of a user.
    fn act_randomly(&mut self, engine: &mut Client, moment: Moment, world: &mut EngineWorld) -> Checked {
        if self.phase == Phase::Closed {
            return Ok(());
        }
        let methods = Rc::clone(&world.methods);
        let rng = &mut self.rng;
        match rng.below(20) {
            0..=11 => {
                // Queues get more calls: a server may run a queue request without a grant, so more
                // can go wrong.
                let route = if rng.chance(300) { methods.calls[0].clone() } else { rng.pick(&methods.calls) };
                let call = random_call(rng, moment, world.model.operations(), route);
                self.call(engine, moment, world, call, false)
            }
            12..=13 => {
                let expected = rng.maybe(300, |rng| rng.below(4) as usize);
                let (timeout, route) = (random_timeout(rng), methods.multi.clone());
                let payload = payload::request(world.model.operations(), true);
                let call = MultiCall { timeout, expected, ..MultiCall::new(route, payload) };
                self.multi_call(engine, moment, world, call, None)
            }
            14..=17 => {
                let route = rng.pick(&methods.streams);
                let metadata = payload::opening(world.model.operations(), !rng.chance(50));
                let selection = random_selection(rng, &route);
                let timeout = random_timeout(rng);
                let waits_for_subscriber = rng.chance(300);
                let open = OpenStream {
                    metadata,
                    timeout,
                    selection,
                    waits_for_subscriber,
                    ..OpenStream::new(route)
                };
                self.open(engine, moment, world, open, false).map(|_| ())
            }
            _ => {
                let route = rng.index(methods.updates.len());
                self.toggle_subscription(engine, world, route);
                Ok(())
            }
        }
    }

    /// Makes fresh calls with default options.
    fn probe(
        &mut self,
        engine: &mut Client,
        moment: Moment,
        world: &mut EngineWorld,
        probes: &[Probe],
    ) -> Checked {
        if self.phase != Phase::Open {
            return Ok(());
        }
        for Probe { route, servers } in probes {
            let (route, number) = (route.clone(), world.model.operations());
            if route.is_stream() {
                let open = |number| {
                    let metadata = payload::opening(number, true);
                    OpenStream { metadata, ..OpenStream::new(route.clone()) }
                };
                self.open(engine, moment, world, open(number), true)?;
                // Opens a second stream and cancels it; the server must learn that.
                let handle = self.open(engine, moment, world, open(number + 1), false)?;
                if let Some(handle) = handle {
                    self.schedule(world, 80, ClientAct::Cancel(handle));
                }
            } else if route.properties().multi() {
                let call = MultiCall::new(route, payload::request(number, true));
                let expected = self.rng.maybe(500, |_| *servers);
                self.multi_call(engine, moment, world, MultiCall { expected, ..call }, Some(*servers))?;
            } else {
                let call = Call::new(route, payload::request(number, true));
                self.call(engine, moment, world, call, true)?;
            }
        }
        Ok(())
    }

    /// Returns the deadline by both clocks of the client.
    fn deadline(&self, now: Now, timeout: Option<Duration>, deadline: Option<Time>) -> (Time, WallTime) {
        let at_most = now.time + timeout.unwrap_or(self.config.timeout);
        let deadline = deadline.map_or(at_most, |deadline| deadline.min(at_most)).max(now.time);
        (deadline, now.wall + deadline.since(now.time))
    }

    /// Returns the parameters of a call that one server runs.
    fn parameters(
        &self,
        now: Now,
        route: &Route,
        selection: &Selection,
        timeout: Option<Duration>,
        deadline: Option<Time>,
    ) -> CallParameters {
        let (deadline, expiry) = self.deadline(now, timeout, deadline);
        let claimed = route.properties().require_claim;
        let rules = claimed.then(|| rules(&self.config, route, selection));
        CallParameters { queue: route.is_queue(), rules, began: now.time, deadline, expiry }
    }

    fn note_operation(
        &self,
        world: &mut EngineWorld,
        kind: OperationKind,
        deadline: Time,
        must_succeed: bool,
    ) -> Checked {
        let asks_caller = match &kind {
            OperationKind::Call(parameters) | OperationKind::Stream(parameters) => {
                parameters.rules.is_some_and(|rules| rules.ask)
            }
            _ => false,
        };
        let grace = if asks_caller { CHOICE_GRACE } else { Duration::ZERO };
        world.note(Fact::Started(Operation { node: self.id(), kind, deadline, grace, must_succeed }))
    }

    fn call(
        &mut self,
        engine: &mut Client,
        moment: Moment,
        world: &mut EngineWorld,
        call: Call,
        fresh: bool,
    ) -> Checked {
        let parameters =
            self.parameters(moment.now, &call.route, &call.selection, call.timeout, call.deadline);
        world.scene.log(self.id(), format_args!("makes call {} of {}", world.model.operations(), call.route));
        let Some(handle) = self.check_made(world, engine.call(moment.now, call), fresh)? else {
            return Ok(());
        };
        self.calls.insert(handle, world.model.operations());
        self.note_operation(
            world,
            OperationKind::Call(parameters),
            moment.virtual_time(parameters.deadline),
            fresh,
        )?;
        self.maybe_cancel(world, handle);
        Ok(())
    }

    fn open(
        &mut self,
        engine: &mut Client,
        moment: Moment,
        world: &mut EngineWorld,
        open: OpenStream,
        fresh: bool,
    ) -> Result<Option<CallHandle>, Violation> {
        let parameters =
            self.parameters(moment.now, &open.route, &open.selection, open.timeout, open.deadline);
        world
            .scene
            .log(self.id(), format_args!("opens stream {} of {}", world.model.operations(), open.route));
        let made = self.check_made(world, engine.open_stream(moment.now, open), fresh)?;
        if let Some(handle) = made {
            self.calls.insert(handle, world.model.operations());
            self.note_operation(
                world,
                OperationKind::Stream(parameters),
                moment.virtual_time(parameters.deadline),
                fresh,
            )?;
            self.maybe_cancel(world, handle);
        }
        Ok(made)
    }

    fn multi_call(
        &mut self,
        engine: &mut Client,
        moment: Moment,
        world: &mut EngineWorld,
        call: MultiCall,
        must_respond: Option<usize>,
    ) -> Checked {
        let (deadline, expiry) = self.deadline(moment.now, call.timeout, call.deadline);
        let (expected, fresh) = (call.expected, must_respond.is_some());
        world
            .scene
            .log(self.id(), format_args!("makes multi call {} of {}", world.model.operations(), call.route));
        let Some(handle) = self.check_made(world, engine.multi_call(moment.now, call), fresh)? else {
            return Ok(());
        };
        self.multi_calls.insert(handle, world.model.operations());
        let kind =
            OperationKind::Multi { deadline, expiry, expected, servers: must_respond.unwrap_or_default() };
        self.note_operation(world, kind, moment.virtual_time(deadline), fresh)?;
        if world.scene.faults.happens(Fault::Cancel, &mut self.rng) {
            self.schedule(world, 400, ClientAct::CancelMulti(handle));
        }
        Ok(())
    }

    /// Returns the handle of a call, or `None` if a limit or a closed client refused the call.
    /// Fails if a fresh call was refused.
    fn check_made<T>(
        &self,
        world: &mut EngineWorld,
        made: Result<T, CallError>,
        fresh: bool,
    ) -> Result<Option<T>, Violation> {
        match made {
            Ok(handle) => Ok(Some(handle)),
            Err(error) if fresh => {
                Invariant::I16.violated(format!("a fresh call cannot be made: {error}")).map(|()| None)
            }
            Err(error) => {
                world.scene.log(self.id(), error);
                Ok(None)
            }
        }
    }

    // --- cancelling and choosing -----------------------------------------------------------------

    fn maybe_cancel(&mut self, world: &mut EngineWorld, handle: CallHandle) {
        if world.scene.faults.happens(Fault::Cancel, &mut self.rng) {
            self.schedule(world, 400, ClientAct::Cancel(handle));
        }
    }

    fn cancel(
        &mut self,
        engine: &mut Client,
        moment: Moment,
        world: &mut EngineWorld,
        handle: CallHandle,
        may_have_ended: bool,
    ) -> Checked {
        world.scene.log(self.id(), format_args!("cancels {handle:?}"));
        engine.cancel(moment.now, handle);
        match self.calls.get(&handle) {
            Some(call) => world.note(Fact::Canceled { call: *call, may_have_ended }),
            None => Ok(()),
        }
    }

    fn choose(&mut self, bids: &[Bid]) -> Choice {
        let rng = &mut self.rng;
        match rng.below(10) {
            0 => Ok(None),
            1 => Ok(Some("SRV_stranger".into())),
            2 => Err(ErrorResponse::new(ErrorCode::FailedPrecondition, "cannot choose")),
            _ if bids.is_empty() => Ok(None),
            _ => Ok(Some(rng.pick(bids).server_id)),
        }
    }

    // --- updates ---------------------------------------------------------------------------------

    /// Subscribes to the updates of a route, or unsubscribes if there is a subscription.
    fn toggle_subscription(&mut self, engine: &mut Client, world: &mut EngineWorld, route: usize) {
        let known = self.subscriptions.iter().find(|(_, subscription)| subscription.route == route);
        if let Some((subscription, _)) = known {
            engine.unsubscribe(*subscription);
            return;
        }
        match engine.subscribe(&world.methods.updates[route], NEWS) {
            Ok(subscription) => {
                self.subscriptions.insert(subscription, UserSubscription { route, is_live: false });
            }
            Err(error) => world.scene.log(self.id(), error),
        }
    }

    fn subscribed(&mut self, world: &EngineWorld, subscription: SubscriptionHandle) -> Checked {
        if let Some(subscription) = self.subscriptions.get_mut(&subscription) {
            subscription.is_live = true;
        }
        let id = world.net.find((self.id(), subscription));
        if id.is_some_and(|id| !world.net.is_live(id)) {
            return Invariant::I13.violated(format!("{}: {subscription:?} is not live yet", self.id()));
        }
        Ok(())
    }

    fn update(
        &mut self,
        engine: &mut Client,
        world: &mut EngineWorld,
        subscription: SubscriptionHandle,
        payload: &Bytes,
    ) -> Checked {
        world.note(Fact::UpdateReceived { at: self.id(), payload })?;
        if world.scene.faults.happens(Fault::SlowConsumer, &mut self.rng) {
            self.schedule(world, 2000, ClientAct::Take(subscription));
        } else {
            engine.taken_update(subscription);
        }
        Ok(())
    }

    fn dropped(&mut self, moment: Moment, world: &EngineWorld, dropped: &Dropped) -> Checked {
        self.owes_gap |= dropped.reason == Reason::SlowConsumer && dropped.peer.is_empty();
        self.stream_user.dropped(moment, world, dropped)
    }

    // --- outcomes --------------------------------------------------------------------------------

    fn ready(&mut self, engine: &mut Client, world: &mut EngineWorld) -> Checked {
        self.phase = Phase::Open;
        for route in 0..world.methods.updates.len() {
            if self.rng.chance(500) {
                self.toggle_subscription(engine, world, route);
            }
        }
        world.all_live(self.id())
    }

    fn ended(
        &mut self,
        world: &mut EngineWorld,
        number: Option<usize>,
        outcome: Result<(), &Failure>,
    ) -> Checked {
        world.count_outcome(outcome);
        world.note(Fact::Ended { number, outcome })
    }
}

/// Returns the rules of PROTOCOL section 6 for a call with these options.
fn rules(config: &ClientConfig, route: &Route, options: &Selection) -> SelectionRules {
    let affinity = route.properties().affinity();
    let short_circuit = if affinity { config.short_circuit_timeout } else { Duration::ZERO };
    SelectionRules {
        minimum: options.minimum_affinity.unwrap_or_default(),
        maximum: options.maximum_affinity.unwrap_or_default(),
        accept_first: options.accept_first_available.unwrap_or(!affinity),
        affinity_timeout: options.affinity_timeout.unwrap_or(config.affinity_timeout),
        short_circuit: options.short_circuit_timeout.unwrap_or(short_circuit),
        ask: options.ask,
        limit: config.limits.bids_per_call,
    }
}

fn random_timeout(rng: &mut Rng) -> Option<Duration> {
    match rng.below(20) {
        0 => Some(Duration::ZERO),
        1..=3 => Some(rng.grains(1..40)),
        4..=12 => Some(rng.grains(40..2000)),
        13..=17 => Some(rng.grains(2000..12_000)),
        _ => None,
    }
}

fn random_call(rng: &mut Rng, moment: Moment, number: usize, route: Route) -> Call {
    let payload = payload::request(number, !rng.chance(50));
    let timeout = random_timeout(rng);
    let deadline = rng.maybe(50, |rng| moment.now.time + rng.grains(0..400));
    let selection = random_selection(rng, &route);
    let waits_for_subscriber = rng.chance(300);
    Call { timeout, deadline, selection, waits_for_subscriber, ..Call::new(route, payload) }
}

/// Draws options that the method allows.
fn random_selection(rng: &mut Rng, route: &Route) -> Selection {
    let accept_first_available = rng.maybe(100, |rng| rng.chance(300));
    if !route.properties().affinity() {
        return Selection { accept_first_available, ..Selection::default() };
    }
    let random_wait = |rng: &mut Rng| rng.maybe(800, |rng| rng.grains(1..400)).unwrap_or_default();
    let base = if rng.chance(100) { Selection::none() } else { Selection::default() };
    Selection {
        minimum_affinity: rng.maybe(250, |rng| rng.pick(&[0.25, 0.5, 1.0, 1.5])).or(base.minimum_affinity),
        maximum_affinity: rng.maybe(250, |rng| rng.pick(&[0.5, 0.75, 1.0])).or(base.maximum_affinity),
        accept_first_available: accept_first_available.or(base.accept_first_available),
        affinity_timeout: rng.maybe(300, random_wait).or(base.affinity_timeout),
        short_circuit_timeout: rng.maybe(300, random_wait).or(base.short_circuit_timeout),
        ask: rng.chance(200),
    }
}

impl EngineUser<Client> for ClientUser {
    type Act = ClientAct;

    fn begin_step(&mut self, moment: Time) -> Checked {
        self.rng.reseed_at(moment);
        self.stream_user.begin_step(moment)
    }

    fn act(
        &mut self,
        engine: &mut Client,
        moment: Moment,
        world: &mut EngineWorld,
        act: ClientAct,
    ) -> Checked {
        match act {
            ClientAct::Use => self.act_randomly(engine, moment, world),
            ClientAct::Probe(probes) => self.probe(engine, moment, world, &probes),
            ClientAct::Cancel(handle) => self.cancel(engine, moment, world, handle, false),
            ClientAct::CancelMulti(handle) => {
                world.scene.log(self.id(), format_args!("cancels {handle:?}"));
                engine.cancel_multi(moment.now, handle);
                match self.multi_calls.remove(&handle) {
                    Some(number) => {
                        world.count("abandoned", 1);
                        world.note(Fact::Abandoned { number })
                    }
                    None => Ok(()),
                }
            }
            ClientAct::Select(handle, choice) => {
                world.scene.log(self.id(), format_args!("selects {choice:?} for {handle:?}"));
                engine.select(moment.now, handle, choice);
                Ok(())
            }
            ClientAct::Take(subscription) => {
                engine.taken_update(subscription);
                Ok(())
            }
            ClientAct::Stream(act) => self.stream_user.act(engine, moment, world, act),
            ClientAct::Close if self.phase == Phase::Closed => Ok(()),
            ClientAct::Close => {
                world.scene.log(self.id(), "closes");
                self.phase = Phase::Closing;
                engine.close(moment.now);
                world.note(Fact::Closed { client: self.id() })
            }
            ClientAct::CloseStreams => {
                self.stream_user.close_all(engine, moment.now);
                Ok(())
            }
        }
    }

    fn on_event(
        &mut self,
        engine: &mut Client,
        moment: Moment,
        world: &mut EngineWorld,
        event: ClientEvent,
    ) -> Checked {
        match event {
            ClientEvent::Ready => self.ready(engine, world),
            ClientEvent::Closed { .. } => {
                self.phase = Phase::Closed;
                let delay = self.rng.grains(0..800);
                world.scene.schedule_after(delay, EngineRunEvent::StartClient(self.slot, None));
                Ok(())
            }
            ClientEvent::Select { call, bids } => {
                let choice = self.choose(&bids);
                if self.rng.chance(500) {
                    engine.select(moment.now, call, choice);
                } else {
                    self.schedule(world, 200, ClientAct::Select(call, choice));
                }
                Ok(())
            }
            ClientEvent::Resolved { call, outcome } => {
                world.count_outcome(outcome.as_ref().map(|_| ()).map_err(|failure| &**failure));
                world.note(Fact::Resolved { call: self.calls.remove(&call), outcome: &outcome })
            }
            ClientEvent::Response { call, server_id, result } => {
                let call = self.multi_calls.get(&call).copied();
                world.note(Fact::MultiResponse { call, server_id: &server_id, result: &result })
            }
            ClientEvent::MultiEnded { call, outcome } => {
                let number = self.multi_calls.remove(&call);
                self.ended(world, number, outcome.as_ref().copied().map_err(|failure| &**failure))
            }
            ClientEvent::Opened { call, outcome } => {
                let number = self.calls.remove(&call);
                self.ended(world, number, outcome.as_ref().map(|_| ()).map_err(|failure| &**failure))?;
                if let Ok(stream) = outcome {
                    self.stream_user.open(world, stream, number, true);
                }
                Ok(())
            }
            ClientEvent::Stream(event) => self.stream_user.on_event(engine, moment, world, event),
            ClientEvent::Subscribed { subscription } => self.subscribed(world, subscription),
            ClientEvent::Unsubscribed { subscription, .. } => {
                self.subscriptions.remove(&subscription);
                Ok(())
            }
            ClientEvent::Gap { .. } => {
                self.owes_gap = false;
                Ok(())
            }
            ClientEvent::Dropped(dropped) => self.dropped(moment, world, &dropped),
            ClientEvent::Update { subscription, payload } => {
                self.update(engine, world, subscription, &payload)
            }
            _ => Ok(()),
        }
    }

    fn is_detail(event: &ClientEvent) -> bool {
        matches!(event, ClientEvent::Subscribed { .. } | ClientEvent::Unsubscribed { .. })
    }

    fn on_frame(&mut self, moment: Moment, world: &mut EngineWorld, frame: &Frame) -> Checked {
        if self.owes_gap {
            return Invariant::I12.violated(format!("{}: an update was lost without a gap", self.id()));
        }
        self.stream_user.on_frame(moment, world, frame);
        world.note(Fact::ClientReceived(self.id(), frame, moment.now.time))
    }

    /// Sometimes cancels a call when a bid for it arrives.
    fn act_before_outputs(
        &mut self,
        engine: &mut Client,
        moment: Moment,
        world: &mut EngineWorld,
        frame: &Frame,
    ) -> Checked {
        let Frame::ClaimRequest(bid) = frame else { return Ok(()) };
        let Some(number) = world.model.number_of(&bid.request_id) else { return Ok(()) };
        if !world.scene.faults.happens(Fault::HastyCancel, &mut self.rng) {
            return Ok(());
        }
        let handle = self.calls.iter().find(|(_, call)| **call == number).map(|(handle, _)| *handle);
        handle.map_or(Ok(()), |handle| self.cancel(engine, moment, world, handle, true))
    }

    fn held(engine: &Client) -> usize {
        engine.held()
    }

    fn expects_event(&self, _: &EngineWorld, frame: &Frame) -> bool {
        let expects = matches!(
            frame,
            Frame::Raw(_)
                | Frame::Other(_)
                | Frame::Stream(Stream { body: Some(StreamBody::Message { .. }), .. })
        );
        expects && self.is_open()
    }

    fn on_pause(&mut self, _: Time) {}

    fn table_sizes(&self, engine: &Client) -> [TableSize; 6] {
        let limits = &self.config.limits;
        [
            TableSize { table: "calls in flight", count: engine.in_flight(), limit: 2 * limits.calls },
            TableSize { table: "streams", count: engine.streams(), limit: limits.streams.streams },
            TableSize { table: "messages held back", count: engine.held(), limit: limits.streams.held },
            TableSize {
                table: "messages on their way",
                count: engine.sending(),
                limit: limits.streams.streams
                    * (limits.streams.sends_per_stream + limits.streams.waiting_per_stream),
            },
            TableSize {
                table: UPDATE_SUBSCRIPTIONS,
                count: engine.listening(),
                limit: self.subscriptions.len(),
            },
            TableSize {
                table: "messages remembered",
                count: engine.remembered(),
                limit: limits.streams.remembered,
            },
        ]
    }

    fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    fn is_closed(&self) -> bool {
        self.phase == Phase::Closed
    }
}
