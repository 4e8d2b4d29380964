//! The client engine: for any behaviour of user, bus, peers and clocks, every operation ends once
//! and leaves no state behind.

use std::collections::BTreeMap;
use std::time::Duration;

use psrpc_engine::proto::{MethodProperties, Routing};
use psrpc_engine::{
    Call, CallHandle, Client, ClientConfig, ClientEvent, ClientLimits, MultiCall, MultiHandle, OpenStream,
    Route, Selection, SubscriptionHandle, Time,
};

use crate::driven::{self, Driven, FRAMES};
use crate::input::Input;
use crate::peer;
use crate::streams::{self, Streams};

/// Low limits, which short inputs can exceed.
const LIMITS: ClientLimits = ClientLimits {
    frame: FRAMES,
    calls: 4,
    bids_per_call: 2,
    responses_per_call: 3,
    updates_per_subscription: 2,
    streams: streams::LIMITS,
};

/// Runs a client with the steps in the input.
pub fn run(input: &[u8]) {
    let mut input = Input(input);
    let config = ClientConfig {
        timeout: Duration::from_millis(500),
        affinity_timeout: Duration::from_millis(200),
        short_circuit_timeout: Duration::from_millis(50),
        tells_cancellation: input.flag(),
        skew_allowance: Duration::from_millis(u64::from(input.byte())),
        horizon: Duration::from_secs(10),
        opens_streams: input.byte() % 8 != 1,
        streams: streams::config(&mut input),
        limits: LIMITS,
        ..ClientConfig::new("Hats")
    };
    let mut user = User {
        driven: Driven::new(Client::new(config, [1; 32]).expect("the service name is valid")),
        routes: routes(),
        calls: BTreeMap::new(),
        multi_calls: BTreeMap::new(),
        handles: (Vec::new(), Vec::new()),
        streams: Streams::default(),
        listening: BTreeMap::new(),
        closed: false,
    };
    user.driven.drain();
    // Most behaviour requires a client that is ready.
    if input.byte() % 8 != 1 {
        user.driven.complete_subscriptions();
    }
    while !input.is_over() {
        user.step(&mut input);
    }
    user.end();
}

/// Returns a route of each kind.
fn routes() -> Vec<Route> {
    let properties = |routing, require_claim| MethodProperties { routing, require_claim };
    let (queue, affinity) = (properties(Routing::Queue, true), properties(Routing::Affinity, true));
    let (single, multi) = (properties(Routing::Queue, false), properties(Routing::Multi, false));
    let methods = [("Fit", queue), ("Pick", affinity), ("OwnerFit", single), ("Census", multi)];
    let plain = methods.map(|(method, properties)| Route::new::<&str>("Hats", method, properties, &[]));
    let streams = [("Parade", affinity), ("Own", single)];
    let streams = streams.map(|(method, properties)| Route::stream("Hats", method, properties, &["a"]));
    plain.into_iter().chain(streams).map(|route| route.expect("the names are valid")).collect()
}

/// The user of the engine, with the state that it expects.
struct User {
    driven: Driven<Client>,
    routes: Vec<Route>,
    /// The calls and stream openings in flight.
    calls: BTreeMap<CallHandle, Ongoing>,
    /// The multi calls in flight: the servers that have responded, and the deadline.
    multi_calls: BTreeMap<MultiHandle, (Vec<String>, Time)>,
    /// The handles of all calls so far, since stale handles may be used.
    handles: (Vec<CallHandle>, Vec<MultiHandle>),
    streams: Streams,
    /// The subscriptions to updates, with the number of unread updates.
    listening: BTreeMap<SubscriptionHandle, usize>,
    closed: bool,
}

#[derive(Clone, Copy)]
struct Ongoing {
    opens: bool,
    deadline: Time,
    called_at_deadline: bool,
}

impl User {
    fn step(&mut self, input: &mut Input<'_>) {
        const STREAMS: u8 = driven::STEPS + streams::STEPS;
        let step = input.byte();
        let kind = step % 36;
        // Inputs from the bus may come in bursts. User steps depend on the events seen so far and
        // on their times.
        if step < 180 || kind >= driven::BURSTS {
            self.check_events();
        }
        let now = self.driven.now;
        match kind {
            0..driven::STEPS => self.driven.step(kind, input),
            driven::STEPS..STREAMS => {
                self.streams.step(&mut self.driven.engine, now, kind - driven::STEPS, input);
            }
            22..=25 => self.call(input),
            26 => self.multi_call(input),
            27 => self.open(input),
            28 => {
                if let Some(call) = input.pick(&self.handles.0) {
                    self.driven.engine.cancel(now, call);
                }
            }
            29 => {
                if let Some(call) = input.pick(&self.handles.1) {
                    self.driven.engine.cancel_multi(now, call);
                    self.multi_calls.remove(&call);
                }
            }
            30 | 31 => {
                if let Some(call) = input.pick(&self.handles.0) {
                    let choice = match input.byte() % 4 {
                        0 => Ok(None),
                        1 => Err(peer::error(input)),
                        _ => Ok(Some(peer::id(input))),
                    };
                    self.driven.engine.select(now, call, choice);
                }
            }
            32 => {
                if let Some(route) = input.pick(&self.routes)
                    && let Ok(subscription) = self.driven.engine.subscribe(&route, "hats.Hat")
                {
                    assert!(self.listening.insert(subscription, 0).is_none());
                }
            }
            33 | 34 => {
                let listening: Vec<_> = self.listening.keys().copied().collect();
                let Some(subscription) = input.pick(&listening) else { return };
                if input.one_in(4) {
                    self.driven.engine.unsubscribe(subscription);
                } else {
                    self.driven.engine.taken_update(subscription);
                    let unread = self.listening.get_mut(&subscription).expect("the subscription exists");
                    *unread = unread.saturating_sub(1);
                }
            }
            _ => {
                if input.one_in(8) {
                    self.driven.engine.close(now);
                }
            }
        }
    }

    fn call(&mut self, input: &mut Input<'_>) {
        let Some(route) = input.pick(&self.routes) else { return };
        let timeout = Duration::from_millis(u64::from(input.byte()) * 8);
        let call = Call {
            timeout: Some(timeout),
            selection: selection(input),
            metadata: peer::metadata(input),
            ..Call::new(route, peer::payload(input))
        };
        let now = self.driven.now;
        if let Ok(call) = self.driven.engine.call(now, call) {
            self.record_call(
                call,
                Ongoing { opens: false, deadline: now.time + timeout, called_at_deadline: false },
            );
        }
    }

    fn open(&mut self, input: &mut Input<'_>) {
        let Some(route) = input.pick(&self.routes[4..]) else { return };
        let timeout = Duration::from_millis(u64::from(input.byte()) * 8);
        let open = OpenStream {
            timeout: Some(timeout),
            selection: selection(input),
            metadata: peer::metadata(input),
            ..OpenStream::new(route)
        };
        let now = self.driven.now;
        if let Ok(call) = self.driven.engine.open_stream(now, open) {
            self.record_call(
                call,
                Ongoing { opens: true, deadline: now.time + timeout, called_at_deadline: false },
            );
        }
    }

    fn record_call(&mut self, call: CallHandle, ongoing: Ongoing) {
        assert!(self.calls.insert(call, ongoing).is_none());
        assert!(self.calls.len() <= LIMITS.calls);
        self.handles.0.push(call);
    }

    fn multi_call(&mut self, input: &mut Input<'_>) {
        let Some(route) = input.pick(&self.routes[3..]) else { return };
        let timeout = Duration::from_millis(u64::from(input.byte()) * 8);
        let expected = input.flag().then(|| usize::from(input.byte() % 4));
        let call =
            MultiCall { timeout: Some(timeout), expected, ..MultiCall::new(route, peer::payload(input)) };
        let now = self.driven.now;
        if let Ok(call) = self.driven.engine.multi_call(now, call) {
            assert!(self.multi_calls.insert(call, (Vec::new(), now.time + timeout)).is_none());
            assert!(self.multi_calls.len() <= LIMITS.calls);
            self.handles.1.push(call);
        }
    }

    /// Takes all events and compares the expected state with the engine's.
    fn check_events(&mut self) {
        self.driven.drain();
        for event in std::mem::take(&mut self.driven.events) {
            assert!(!self.closed || matches!(event, ClientEvent::Dropped(_)), "{event:?} after the close");
            self.on_event(event);
        }
        let (now, engine) = (self.driven.now, &self.driven.engine);
        assert!(self.calls.values().all(|call| call.deadline > now.time), "a call ends by its deadline");
        assert!(self.multi_calls.values().all(|(_, deadline)| *deadline > now.time));
        self.streams.check(now);
        let opening = self.calls.values().filter(|call| call.opens).count();
        assert_eq!(engine.in_flight(), self.calls.len() + self.multi_calls.len());
        assert_eq!(engine.streams(), self.streams.len() + opening);
        assert!(engine.streams() <= streams::LIMITS.streams);
        assert_eq!(engine.sending(), self.streams.sending());
        assert_eq!(engine.listening(), self.listening.len());
        assert!(engine.remembered() <= streams::LIMITS.remembered);
        assert!(engine.held() <= streams::LIMITS.held);
    }

    fn on_event(&mut self, event: ClientEvent) {
        match event {
            ClientEvent::Resolved { call, outcome } => {
                let ongoing = self.calls.remove(&call).expect("a call ends once");
                assert!(!ongoing.opens);
                if let Err(failure) = outcome {
                    assert!(!format!("{failure:?} {failure}").is_empty());
                }
            }
            ClientEvent::Opened { call, outcome } => {
                let ongoing = self.calls.remove(&call).expect("an opening ends once");
                assert!(ongoing.opens);
                if let Ok(stream) = outcome {
                    self.streams.opened(stream);
                }
            }
            ClientEvent::Response { call, server_id, .. } => {
                let (servers, _) = self.multi_calls.get_mut(&call).expect("responses come before the end");
                let server = server_id.to_string();
                assert!(!servers.contains(&server), "a server responds once");
                servers.push(server);
                assert!(servers.len() <= LIMITS.responses_per_call);
            }
            ClientEvent::MultiEnded { call, .. } => {
                assert!(self.multi_calls.remove(&call).is_some(), "a multi call ends once");
            }
            ClientEvent::Select { call, bids } => {
                assert!(bids.len() <= LIMITS.bids_per_call);
                assert!(bids.iter().all(|claim| claim.affinity.is_finite()));
                let ongoing = self.calls.get_mut(&call).expect("a selection belongs to a call in flight");
                // A function that is first called at the deadline has a moment to decide.
                if ongoing.deadline <= self.driven.now.time {
                    assert!(!ongoing.called_at_deadline, "the selection function is called once");
                    ongoing.called_at_deadline = true;
                    ongoing.deadline = self.driven.now.time + Duration::from_millis(1);
                }
            }
            ClientEvent::Stream(event) => self.streams.on_event(event),
            ClientEvent::Update { subscription, .. } => {
                let unread = self.listening.get_mut(&subscription).expect("updates come before the end");
                *unread += 1;
                assert!(*unread <= LIMITS.updates_per_subscription);
            }
            ClientEvent::Unsubscribed { subscription, .. } => {
                assert!(self.listening.remove(&subscription).is_some(), "a subscription ends once");
            }
            ClientEvent::Closed { .. } => self.closed = true,
            _ => {}
        }
    }

    /// Lets time pass until everything has ended by itself, then closes the client.
    fn end(&mut self) {
        self.check_events();
        for _ in 0..4 {
            self.driven.tick(Duration::from_secs(3600), 0);
            self.check_events();
        }
        let engine = &self.driven.engine;
        assert_eq!((engine.in_flight(), engine.sending(), engine.remembered()), (0, 0, 0));
        assert_eq!(engine.held(), 0);
        self.driven.engine.close(self.driven.now);
        self.check_events();
        self.driven.settle();
        self.check_events();
        assert!(self.closed, "the client did not close although the bus completed all requests");
        let engine = &self.driven.engine;
        assert_eq!(
            (engine.streams(), engine.listening(), psrpc_engine::Engine::poll_timeout(engine)),
            (0, 0, None)
        );
    }
}

/// Generates selection options, some of them invalid.
fn selection(input: &mut Input<'_>) -> Selection {
    let affinity = |input: &mut Input<'_>| (input.one_in(4)).then(|| peer::affinity(input));
    let time =
        |input: &mut Input<'_>| (input.one_in(4)).then(|| Duration::from_millis(u64::from(input.byte())));
    if input.one_in(2) {
        return Selection::default();
    }
    Selection {
        minimum_affinity: affinity(input),
        maximum_affinity: affinity(input),
        accept_first_available: input.flag().then(|| input.flag()),
        affinity_timeout: time(input),
        short_circuit_timeout: time(input),
        ask: input.flag(),
    }
}
