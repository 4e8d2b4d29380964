//! The server engine: for any behaviour of user, bus, peers and clocks, every operation ends once
//! and leaves no state behind.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use psrpc_engine::proto::{Any, MethodProperties, Routing};
use psrpc_engine::{
    Engine, Received, RegistrationHandle, RequestHandle, Route, Server, ServerConfig, ServerEvent,
    ServerLimits, StreamEvent, StreamHandle, Time, UpdateHandle,
};

use crate::driven::{self, Driven, FRAMES};
use crate::input::Input;
use crate::peer;
use crate::streams::{self, Streams};

/// Low limits, which short inputs can exceed.
const LIMITS: ServerLimits = ServerLimits {
    frame: FRAMES,
    requests: 5,
    request_bytes: 1 << 20,
    remembered: 8,
    cached_clients: 1,
    updates: 2,
    streams: streams::LIMITS,
};

/// The concurrency limit, if it is on.
const CONCURRENCY: usize = 3;

/// Runs a server with the steps in the input.
pub fn run(input: &[u8]) {
    let mut input = Input(input);
    let limited = input.flag();
    let config = ServerConfig {
        id: "SRV_own".into(),
        timeout: Duration::from_millis(500),
        concurrency: limited.then_some(CONCURRENCY),
        heeds_cancellation: input.flag(),
        skew_allowance: Duration::from_millis(u64::from(input.byte())),
        horizon: Duration::from_secs(10),
        streams: streams::config(&mut input),
        limits: LIMITS,
        ..ServerConfig::new("Hats")
    };
    let mut user = User {
        driven: Driven::new(Server::new(config, [2; 32]).expect("the service name is valid")),
        limited,
        routes: routes(),
        registrations: BTreeMap::new(),
        registered: Vec::new(),
        requests: BTreeMap::new(),
        handles: Vec::new(),
        ran: BTreeMap::new(),
        streams: Streams::default(),
        handlers: BTreeSet::new(),
        updates: BTreeMap::new(),
        closed: false,
    };
    // Most behaviour requires a registered method.
    if input.byte() % 8 != 1 {
        for route in user.routes.clone() {
            user.register(vec![route]);
        }
        user.driven.drain();
        user.driven.complete_subscriptions();
    }
    while !input.is_over() {
        user.step(&mut input);
    }
    user.end(input.flag());
}

/// Returns a route of each kind, and two that conflict with others.
fn routes() -> Vec<Route> {
    let properties = |routing, require_claim| MethodProperties { routing, require_claim };
    let (queue, affinity) = (properties(Routing::Queue, true), properties(Routing::Affinity, true));
    let (single, multi) = (properties(Routing::Queue, false), properties(Routing::Multi, false));
    let methods = [
        ("Fit", queue, &[][..]),
        ("Pick", affinity, &[]),
        ("OwnerFit", single, &[]),
        ("Census", multi, &[]),
        ("Fit", queue, &["a", ""]),
        ("Pick", affinity, &["Q"]),
    ];
    let plain = methods.map(|(method, properties, topic)| Route::new("Hats", method, properties, topic));
    let streams = [("Parade", affinity), ("Own", single)];
    let streams = streams.map(|(method, properties)| Route::stream("Hats", method, properties, &["a"]));
    plain.into_iter().chain(streams).map(|route| route.expect("the names are valid")).collect()
}

/// The user of the engine, with the state that it expects.
struct User {
    driven: Driven<Server>,
    limited: bool,
    routes: Vec<Route>,
    /// The active registrations.
    registrations: BTreeMap<RegistrationHandle, Registration>,
    /// The handles of all registrations so far, since stale handles may be used.
    registered: Vec<RegistrationHandle>,
    /// The requests in flight.
    requests: BTreeMap<RequestHandle, Request>,
    handles: Vec<RequestHandle>,
    /// The deadline of each received request, by client and id. The engine must not report the
    /// request again before that.
    ran: BTreeMap<(String, String), Time>,
    streams: Streams,
    /// The streams with a running handler.
    handlers: BTreeSet<StreamHandle>,
    /// The deadlines of the updates in flight.
    updates: BTreeMap<UpdateHandle, Time>,
    closed: bool,
}

#[derive(PartialEq)]
enum Registration {
    Joining,
    Serving,
    Lost,
}

struct Request {
    opens: bool,
    deadline: Time,
    running: bool,
}

impl User {
    fn step(&mut self, input: &mut Input<'_>) {
        const STREAMS: u8 = driven::STEPS + streams::STEPS;
        let step = input.byte();
        let kind = step % 40;
        // Inputs from the bus may come in bursts. User steps depend on the events seen so far and
        // on their times.
        if step < 180 || kind >= driven::BURSTS {
            self.check_events();
        }
        let now = self.driven.now;
        let engine = &mut self.driven.engine;
        match kind {
            0..driven::STEPS => self.driven.step(kind, input),
            driven::STEPS..STREAMS => self.streams.step(engine, now, kind - driven::STEPS, input),
            22..=25 => {
                if let Some(request) = input.pick(&self.handles) {
                    engine.bid(now, request, peer::affinity(input));
                }
            }
            26 => {
                if let Some(request) = input.pick(&self.handles) {
                    engine.skip_claim(now, request);
                }
            }
            27 => {
                if let Some(request) = input.pick(&self.handles) {
                    let waits = engine.is_waiting(request);
                    engine.reject(now, request, peer::error(input));
                    if waits {
                        self.requests.remove(&request);
                    }
                }
            }
            28..=30 => self.respond(input),
            31 | 32 => {
                if let Some(stream) = self.streams.pick(input) {
                    let result = if input.flag() { Ok(()) } else { Err(peer::error(input)) };
                    engine.finish_stream(now, stream, result);
                    self.handlers.remove(&stream);
                }
            }
            33 | 34 => self.publish(input),
            35 => {
                let updates: Vec<_> = self.updates.keys().copied().collect();
                if let Some(update) = input.pick(&updates) {
                    engine.cancel_update(now, update);
                    self.updates.remove(&update);
                }
            }
            36 => {
                let count = input.byte() % 3;
                let routes = (0..count).filter_map(|_| input.pick(&self.routes)).collect();
                self.register(routes);
            }
            37 => {
                if let Some(registration) = input.pick(&self.registered) {
                    engine.deregister(now, registration);
                }
            }
            38 => {
                if input.one_in(8) {
                    engine.drain(now);
                }
            }
            _ => {
                if input.one_in(16) {
                    engine.kill(now);
                }
            }
        }
    }

    fn register(&mut self, routes: Vec<Route>) {
        if let Ok(registration) = self.driven.engine.register(routes) {
            assert!(self.registrations.insert(registration, Registration::Joining).is_none());
            self.registered.push(registration);
        }
    }

    fn respond(&mut self, input: &mut Input<'_>) {
        let Some(handle) = input.pick(&self.handles) else { return };
        let result = if input.flag() { Ok(peer::payload(input)) } else { Err(peer::error(input)) };
        self.driven.engine.respond(self.driven.now, handle, result);
        // The request is within its deadline, since timeouts are handled as time advances.
        if self.requests.get(&handle).is_some_and(|request| request.running) {
            self.requests.remove(&handle);
        }
    }

    fn publish(&mut self, input: &mut Input<'_>) {
        let Some(route) = input.pick(&self.routes) else { return };
        let timeout = Duration::from_millis(1 + u64::from(input.byte()) * 8);
        let update = Any { type_url: "type.googleapis.com/hats.Hat".into(), value: peer::payload(input) };
        let now = self.driven.now;
        if let Ok(update) = self.driven.engine.publish(now, &route, update, Some(timeout)) {
            assert!(self.updates.insert(update, now.time + timeout).is_none());
            assert!(self.updates.len() <= LIMITS.updates);
        }
    }

    /// Takes all events and compares the expected state with the engine's.
    fn check_events(&mut self) {
        self.driven.drain();
        for event in std::mem::take(&mut self.driven.events) {
            assert!(!self.closed || matches!(event, ServerEvent::Dropped(_)), "{event:?} after the close");
            self.on_event(event);
        }
        let (now, engine) = (self.driven.now, &self.driven.engine);
        assert!(
            self.requests.values().all(|request| request.deadline > now.time),
            "a request ends by its deadline"
        );
        assert!(self.updates.values().all(|deadline| *deadline > now.time), "an update ends by its deadline");
        self.streams.check(now);
        // Responses may still be in flight.
        assert!((self.requests.len()..=LIMITS.requests).contains(&engine.in_flight()));
        let busy = self.requests.values().filter(|request| !request.opens).count();
        assert!(!self.limited || busy <= CONCURRENCY);
        assert_eq!(engine.streams(), self.handlers.len());
        assert!(engine.streams() <= streams::LIMITS.streams);
        assert_eq!(engine.sending(), self.streams.sending());
        assert_eq!(engine.publishing(), self.updates.len());
        assert!(engine.remembered() <= LIMITS.remembered + streams::LIMITS.remembered);
        assert!(engine.held() <= streams::LIMITS.held);
    }

    fn on_event(&mut self, event: ServerEvent) {
        match event {
            ServerEvent::Registered { registration, result } => {
                let state = self.registrations.remove(&registration);
                assert!(state == Some(Registration::Joining), "a registration is made once");
                if result.is_ok() {
                    self.registrations.insert(registration, Registration::Serving);
                }
            }
            ServerEvent::RegistrationLost { registration, .. } => {
                let state = self.registrations.insert(registration, Registration::Lost);
                assert!(state == Some(Registration::Serving), "a registration is lost once");
            }
            ServerEvent::Deregistered { registration } => {
                let state = self.registrations.remove(&registration);
                assert!(
                    state.is_some_and(|state| state != Registration::Joining),
                    "a registration ends once"
                );
            }
            ServerEvent::Received(received) => self.received(received),
            ServerEvent::Run { request } => {
                let running = self.requests.get_mut(&request).expect("a request runs after it was received");
                assert!(!running.opens && !running.running, "a request runs once");
                assert!(self.driven.now.time < running.deadline, "an expired request does not run (I3)");
                running.running = true;
            }
            ServerEvent::Accepted { request, stream } => {
                let opening =
                    self.requests.remove(&request).expect("an opening is accepted after it was received");
                assert!(opening.opens && self.driven.now.time < opening.deadline);
                self.streams.opened(stream);
                assert!(self.handlers.insert(stream));
            }
            ServerEvent::Abandoned { request, .. } => {
                assert!(self.requests.remove(&request).is_some(), "a request ends once");
            }
            ServerEvent::Stream(event) => {
                if let StreamEvent::Ended { stream, .. } = &event {
                    assert!(self.streams.is_open(*stream));
                }
                self.streams.on_event(event);
            }
            ServerEvent::StopHandler { stream } => {
                assert!(self.handlers.remove(&stream), "a handler is stopped once");
                assert!(!self.streams.is_open(stream), "its stream ends before");
            }
            ServerEvent::Updated { update, .. } => {
                assert!(self.updates.remove(&update).is_some(), "an update ends once");
            }
            ServerEvent::Closed => {
                assert!(!self.closed, "the server closes once");
                self.closed = true;
            }
            _ => {}
        }
    }

    fn received(&mut self, received: Received) {
        let Received { request, client_id, request_id, deadline, opens_stream: opens, .. } = received;
        let now = self.driven.now;
        assert!(deadline > now.time);
        if !opens {
            let until = self.ran.insert((client_id.to_string(), request_id.to_string()), deadline);
            assert!(until.is_none_or(|until| until <= now.time), "a request runs once until it expires (I2)");
        }
        assert!(self.requests.insert(request, Request { opens, deadline, running: false }).is_none());
        self.handles.push(request);
    }

    /// Shuts the server down, and lets time pass until everything has ended by itself.
    fn end(&mut self, at_once: bool) {
        self.check_events();
        if at_once {
            self.driven.engine.kill(self.driven.now);
        } else {
            self.driven.engine.drain(self.driven.now);
        }
        self.check_events();
        for _ in 0..4 {
            self.driven.tick(Duration::from_secs(3600), 0);
            self.check_events();
        }
        assert!(self.closed, "a server closes by the expiry of the last request");
        self.driven.settle();
        self.check_events();
        let engine = &self.driven.engine;
        let remaining = (engine.in_flight(), engine.streams(), engine.publishing(), engine.remembered());
        assert_eq!((remaining, engine.poll_timeout()), ((0, 0, 0, 0), None));
    }
}
