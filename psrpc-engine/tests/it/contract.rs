//! Property tests of the driving contract, over arbitrary interleavings of commands, frames,
//! results and time: the same inputs give the same outputs (I17), no timer is due after it was
//! handled (I18), no state remains at the end (I9), and every call resolves exactly once and by its
//! deadline (I1).

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::Index;
use psrpc_engine::proto::{
    ClaimRequest, ClaimResponse, ErrorCode, ErrorResponse, Frame, Request, Response, Text,
};
use psrpc_engine::{
    Call, CallHandle, Client, ClientConfig, ClientEvent, ClientLimits, Engine, RegistrationHandle,
    RequestHandle, Selection, Server, ServerConfig, ServerEvent, ServerLimits, Time, WallTime,
};

use crate::fixture::{AFFINITY, QUEUE, SINGLE, ms, route};
use crate::steps::{CommonStep, Run, common_steps};

#[derive(Clone, Debug)]
enum ClientStep {
    Common(CommonStep),
    Call { method: u8, timeout: u64, minimum: f32, ask: bool },
    Cancel(Index),
    Select(Index, u8),
    Bid { of: Index, server: u8, affinity: f32, handling: bool },
    Response { of: Index, server: u8, ok: bool },
    Close,
}

fn client_steps() -> impl Strategy<Value = Vec<ClientStep>> {
    let affinities = prop_oneof![-1.0f32..2.0, Just(f32::NAN), Just(f32::INFINITY)];
    let step = prop_oneof![
        40 => common_steps().prop_map(ClientStep::Common),
        20 => (0..3u8, 0..4000u64, -1.0f32..1.0, any::<bool>())
            .prop_map(|(method, timeout, minimum, ask)| ClientStep::Call { method, timeout, minimum, ask }),
        5 => any::<Index>().prop_map(ClientStep::Cancel),
        5 => any::<(Index, u8)>().prop_map(|(index, choice)| ClientStep::Select(index, choice % 6)),
        25 => (any::<Index>(), 0..4u8, affinities, prop::bool::weighted(0.1))
            .prop_map(|(of, server, affinity, handling)| ClientStep::Bid { of, server, affinity, handling }),
        20 => (any::<Index>(), 0..4u8, any::<bool>())
            .prop_map(|(of, server, ok)| ClientStep::Response { of, server, ok }),
        1 => Just(ClientStep::Close),
    ];
    proptest::collection::vec(step, 0..120)
}

fn server_name(server: u8) -> Text {
    // One server has an empty id.
    if server == 3 { Text::EMPTY } else { format!("SRV_{server}").into() }
}

/// Runs the steps on a new client, and returns the trace.
fn run_client(steps: &[ClientStep]) -> String {
    let limits = ClientLimits { calls: 12, bids_per_call: 2, ..ClientLimits::DEFAULT };
    let config = ClientConfig { limits, ..ClientConfig::new("Hats") };
    let mut run = Run::new(Client::new(config, [3; 32]).unwrap());
    run.drain();
    for subscription in run.subscriptions.clone() {
        run.engine.handle_subscribed(run.now, subscription, Ok(()));
    }
    let (bids, responses) = (run.subscriptions[0], run.subscriptions[1]);
    let mut calls: Vec<(CallHandle, Time)> = Vec::new();
    let mut events = CallEvents::default();
    for step in steps {
        let request = |run: &Run<Client>, of: &Index| {
            let requests = run.frames.iter().filter_map(|frame| match frame {
                Frame::Request(request) => Some(request.request_id.clone()),
                _ => None,
            });
            let requests: Vec<_> = requests.collect();
            if requests.is_empty() { Text::from("REQ_none") } else { of.get(&requests).clone() }
        };
        match step {
            ClientStep::Common(step) => run.apply(step),
            ClientStep::Call { method, timeout, minimum, ask } => {
                let (route, selection) = match method {
                    0 => (route("Fit", QUEUE), Selection::default()),
                    1 => (route("OwnerFit", SINGLE), Selection::default()),
                    _ => {
                        let minimum_affinity = Some(*minimum);
                        let selection = Selection { minimum_affinity, ask: *ask, ..Selection::default() };
                        (route("Pick", AFFINITY), selection)
                    }
                };
                let call = Call { timeout: Some(ms(*timeout)), selection, ..Call::new(route, "x") };
                let deadline = run.now.time + ms(*timeout);
                if let Ok(handle) = run.engine.call(run.now, call) {
                    calls.push((handle, deadline));
                }
            }
            ClientStep::Cancel(index) => {
                if let Some((call, _)) = Run::<Client>::pick(&calls, index) {
                    run.engine.cancel(run.now, call);
                }
            }
            ClientStep::Select(index, choice) => {
                if let Some((call, _)) = Run::<Client>::pick(&calls, index) {
                    let choice = match choice {
                        0 => Ok(None),
                        1 => Err(ErrorResponse::new(ErrorCode::Internal, "no")),
                        server => Ok(Some(server_name(server - 2))),
                    };
                    run.engine.select(run.now, call, choice);
                }
            }
            ClientStep::Bid { of, server, affinity, handling } => {
                let claim = ClaimRequest {
                    request_id: request(&run, of),
                    server_id: server_name(*server),
                    affinity: *affinity,
                    handling: *handling,
                };
                run.engine.handle_frame(run.now, bids, Frame::ClaimRequest(claim));
            }
            ClientStep::Response { of, server, ok } => {
                let error = || ErrorResponse::new(ErrorCode::Internal, "no");
                let response = Response {
                    request_id: request(&run, of),
                    server_id: server_name(*server),
                    sent_at: 0,
                    result: if *ok { Ok("yes".into()) } else { Err(error()) },
                };
                run.engine.handle_frame(run.now, responses, Frame::Response(response));
            }
            ClientStep::Close => run.engine.close(run.now),
        }
        events.record(&mut run);
        if let ClientStep::Common(CommonStep::Tick(_) | CommonStep::Jump(_)) = step {
            let due = calls.iter().filter(|(_, deadline)| *deadline <= run.now.time);
            for (call, _) in due {
                assert!(events.is_over(*call, run.now.time), "{call:?} resolves by its deadline (I1)");
            }
        }
    }
    run.make_room();
    run.tick(Duration::from_secs(10), 0);
    run.tick(ms(1), 0);
    events.record(&mut run);
    assert_eq!(run.engine.in_flight(), 0, "no call remains");
    assert_eq!(run.engine.poll_timeout(), None, "no timer remains");
    for (call, _) in &calls {
        assert_eq!(events.resolved.get(call), Some(&1), "{call:?} resolves exactly once");
    }
    run.trace
}

/// The events of all calls.
#[derive(Default)]
struct CallEvents {
    /// The number of times that each call has resolved.
    resolved: BTreeMap<CallHandle, u32>,
    /// The time at which each selection function was called.
    selecting: BTreeMap<CallHandle, Time>,
}

impl CallEvents {
    fn record(&mut self, run: &mut Run<Client>) {
        for event in run.events.drain(..) {
            match event {
                ClientEvent::Resolved { call, .. } => *self.resolved.entry(call).or_default() += 1,
                ClientEvent::Select { call, .. } => {
                    self.selecting.insert(call, run.now.time);
                }
                _ => {}
            }
        }
    }

    /// Returns `true` if a call at its deadline has resolved, or called its selection function
    /// within the last timer tick.
    fn is_over(&self, call: CallHandle, now: Time) -> bool {
        let selects_now = self.selecting.get(&call).is_some_and(|selecting| now < *selecting + ms(1));
        self.resolved.get(&call).map_or(selects_now, |times| *times == 1)
    }
}

#[derive(Clone, Debug)]
enum ServerStep {
    Common(CommonStep),
    Request { method: u8, id: u8, client: u8, timeout: i64, age: i64, skip: bool },
    Bid(Index, f32),
    SkipClaim(Index),
    Reject(Index),
    Respond(Index, bool),
    Grant { method: u8, id: u8, server: u8 },
    Register(u8),
    Deregister(Index),
    Drain,
    Kill,
}

fn server_steps() -> impl Strategy<Value = Vec<ServerStep>> {
    let affinities = prop_oneof![-1.0f32..2.0, Just(f32::NAN)];
    let step = prop_oneof![
        40 => common_steps().prop_map(ServerStep::Common),
        40 => (0..3u8, 0..12u8, 0..2u8, -100..5000i64, -2000..2000i64, any::<bool>()).prop_map(
            |(method, id, client, timeout, age, skip)| ServerStep::Request { method, id, client, timeout, age, skip }
        ),
        20 => (any::<Index>(), affinities).prop_map(|(index, affinity)| ServerStep::Bid(index, affinity)),
        5 => any::<Index>().prop_map(ServerStep::SkipClaim),
        3 => any::<Index>().prop_map(ServerStep::Reject),
        15 => any::<(Index, bool)>().prop_map(|(index, ok)| ServerStep::Respond(index, ok)),
        15 => (0..2u8, 0..12u8, 0..3u8)
            .prop_map(|(method, id, server)| ServerStep::Grant { method, id, server }),
        3 => (0..3u8).prop_map(ServerStep::Register),
        2 => any::<Index>().prop_map(ServerStep::Deregister),
        1 => Just(ServerStep::Drain),
        1 => Just(ServerStep::Kill),
    ];
    proptest::collection::vec(step, 0..120)
}

/// Runs the steps on a new server, and returns the trace.
fn run_server(steps: &[ServerStep]) -> String {
    let limits = ServerLimits { requests: 6, remembered: 9, cached_clients: 1, ..ServerLimits::DEFAULT };
    let config = ServerConfig {
        id: "SRV_0".into(),
        limits,
        skew_allowance: ms(50),
        horizon: Duration::from_secs(4),
        ..ServerConfig::new("Hats")
    };
    let mut run = Run::new(Server::new(config, [4; 32]).unwrap());
    let routes = [route("Fit", QUEUE), route("Pick", AFFINITY), route("OwnerFit", SINGLE)];
    let mut registrations: Vec<RegistrationHandle> =
        routes.iter().map(|route| run.engine.register(vec![route.clone()]).unwrap()).collect();
    run.drain();
    for subscription in run.subscriptions.clone() {
        run.engine.handle_subscribed(run.now, subscription, Ok(()));
    }
    // In order of registration: grants and requests of Fit, the same of Pick, requests of OwnerFit.
    let subscriptions = run.subscriptions.clone();
    let mut requests: Vec<RequestHandle> = Vec::new();
    // The expiry of each request, by the wall clock on receipt.
    let mut expiries: BTreeMap<RequestHandle, WallTime> = BTreeMap::new();
    for step in steps {
        match step {
            ServerStep::Common(step) => run.apply(step),
            ServerStep::Request { method, id, client, timeout, age, skip } => {
                let sent_at = run.now.wall.as_unix_nanos() - age * 1_000_000;
                let request = Request {
                    request_id: format!("REQ_{id}").into(),
                    client_id: format!("CLI_{client}").into(),
                    sent_at,
                    expiry: sent_at + timeout * 1_000_000,
                    skip_claim: *skip,
                    ..Request::default()
                };
                let subscription = subscriptions[[1, 3, 4][usize::from(*method)]];
                run.engine.handle_frame(run.now, subscription, Frame::Request(request));
            }
            ServerStep::Bid(index, affinity) => {
                if let Some(request) = Run::<Server>::pick(&requests, index) {
                    run.engine.bid(run.now, request, *affinity);
                }
            }
            ServerStep::SkipClaim(index) => {
                if let Some(request) = Run::<Server>::pick(&requests, index) {
                    run.engine.skip_claim(run.now, request);
                }
            }
            ServerStep::Reject(index) => {
                if let Some(request) = Run::<Server>::pick(&requests, index) {
                    run.engine.reject(run.now, request, ErrorResponse::new(ErrorCode::Internal, "no"));
                }
            }
            ServerStep::Respond(index, ok) => {
                if let Some(request) = Run::<Server>::pick(&requests, index) {
                    let error = || ErrorResponse::new(ErrorCode::Internal, "no");
                    let result = if *ok { Ok("yes".into()) } else { Err(error()) };
                    run.engine.respond(run.now, request, result);
                }
            }
            ServerStep::Grant { method, id, server } => {
                let grant =
                    ClaimResponse { request_id: format!("REQ_{id}").into(), server_id: server_name(*server) };
                let subscription = subscriptions[[0, 2][usize::from(*method)]];
                run.engine.handle_frame(run.now, subscription, Frame::ClaimResponse(grant));
            }
            ServerStep::Register(method) => {
                if let Ok(registration) = run.engine.register(vec![routes[usize::from(*method)].clone()]) {
                    registrations.push(registration);
                }
            }
            ServerStep::Deregister(index) => {
                if let Some(registration) = Run::<Server>::pick(&registrations, index) {
                    run.engine.deregister(run.now, registration);
                }
            }
            ServerStep::Drain => run.engine.drain(run.now),
            ServerStep::Kill => run.engine.kill(run.now),
        }
        // Drains after each step, so that a handler is checked against the clock at its start.
        run.drain();
        for event in run.events.drain(..) {
            match event {
                ServerEvent::Received(received) => {
                    requests.push(received.request);
                    let remaining = received.deadline.since(run.now.time);
                    expiries.insert(received.request, run.now.wall + remaining);
                }
                ServerEvent::Run { request } => {
                    assert!(run.now.wall < expiries[&request], "a handler starts before the expiry (I3)");
                }
                _ => {}
            }
        }
    }
    run.engine.drain(run.now);
    run.make_room();
    run.confirm();
    // Long enough for remembered requests to expire despite jumps of the wall clock.
    for _ in 0..100 {
        run.tick(Duration::from_secs(60), 0);
        run.confirm();
    }
    assert_eq!((run.engine.in_flight(), run.engine.remembered()), (0, 0), "no state remains");
    assert_eq!(run.engine.poll_timeout(), None, "no timer remains");
    run.trace
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_client_keeps_the_contract(steps in client_steps()) {
        prop_assert_eq!(run_client(&steps), run_client(&steps), "same inputs, same outputs");
    }

    #[test]
    fn a_server_keeps_the_contract(steps in server_steps()) {
        prop_assert_eq!(run_server(&steps), run_server(&steps), "same inputs, same outputs");
    }
}
