//! The contract of a client that makes multi calls, opens streams and subscribes to updates.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::Index;
use psrpc_engine::proto::{Any, ClaimRequest, Frame, Response, Text};
use psrpc_engine::{
    CallHandle, Client, ClientConfig, ClientEvent, ClientLimits, Engine, MultiCall, MultiHandle, OpenStream,
    StreamConfig, SubscriptionHandle, Time,
};

use super::{
    LIMITS, StreamStep, StreamUser, claimed, pick, published, step, stream_configs, stream_steps, unclaimed,
};
use crate::fixture::{EPOCH, MULTI, QUEUE, ms, route};
use crate::steps::{CommonStep, Run, common_steps};

#[derive(Clone, Debug)]
enum ClientStep {
    Common(CommonStep),
    Stream(StreamStep),
    Open { claimed: bool, timeout: u64 },
    Cancel(Index),
    Bid(Index),
    Multi { timeout: u64, expected: Option<u8> },
    CancelMulti(Index),
    Response(Index, u8),
    Subscribe(bool),
    Unsubscribe(Index),
    Update(Index, bool),
    TakenUpdate(Index),
    Close,
}

fn client_steps() -> impl Strategy<Value = Vec<ClientStep>> {
    let step = prop_oneof![
        400 => common_steps().prop_map(ClientStep::Common),
        600 => stream_steps().prop_map(ClientStep::Stream),
        100 => (any::<bool>(), 0..4000u64).prop_map(|(claimed, timeout)| ClientStep::Open { claimed, timeout }),
        10 => any::<Index>().prop_map(ClientStep::Cancel),
        100 => any::<Index>().prop_map(ClientStep::Bid),
        50 => (0..4000u64, prop::option::of(0..3u8))
            .prop_map(|(timeout, expected)| ClientStep::Multi { timeout, expected }),
        10 => any::<Index>().prop_map(ClientStep::CancelMulti),
        80 => (any::<Index>(), 0..5u8).prop_map(|(call, server)| ClientStep::Response(call, server)),
        30 => any::<bool>().prop_map(ClientStep::Subscribe),
        20 => any::<Index>().prop_map(ClientStep::Unsubscribe),
        60 => (any::<Index>(), prop::bool::weighted(0.8)).prop_map(|(at, known)| ClientStep::Update(at, known)),
        30 => any::<Index>().prop_map(ClientStep::TakenUpdate),
        3 => Just(ClientStep::Close),
    ];
    proptest::collection::vec(step, 0..150)
}

/// The state that the user of a client keeps.
#[derive(Default)]
struct Caller {
    streams: StreamUser,
    /// Openings, each with its deadline.
    openings: Vec<(CallHandle, Time)>,
    opened: BTreeMap<CallHandle, u32>,
    /// Multi calls, each with its deadline, or `None` if it was canceled.
    multi_calls: Vec<(MultiHandle, Option<Time>)>,
    multi_ended: BTreeMap<MultiHandle, u32>,
    listeners: Vec<SubscriptionHandle>,
    unsubscribed: BTreeMap<SubscriptionHandle, u32>,
}

impl Caller {
    fn record_events(&mut self, run: &mut Run<Client>) {
        for event in run.events.drain(..) {
            match event {
                ClientEvent::Opened { call, outcome } => {
                    *self.opened.entry(call).or_default() += 1;
                    self.streams.streams.extend(outcome.ok());
                }
                ClientEvent::Stream(event) => self.streams.record(event),
                ClientEvent::MultiEnded { call, .. } => *self.multi_ended.entry(call).or_default() += 1,
                ClientEvent::Response { call, .. } => {
                    assert!(!self.multi_ended.contains_key(&call), "no event after the end");
                }
                ClientEvent::Update { subscription, .. } => {
                    assert!(!self.unsubscribed.contains_key(&subscription), "no event after the end");
                }
                ClientEvent::Unsubscribed { subscription, .. } => {
                    *self.unsubscribed.entry(subscription).or_default() += 1;
                }
                _ => {}
            }
        }
    }

    fn check(&self, now: Time) {
        self.streams.check(now);
        for (call, _) in self.openings.iter().filter(|(_, deadline)| *deadline <= now) {
            assert_eq!(self.opened.get(call), Some(&1), "{call:?} resolves by its deadline (I1)");
        }
        for (call, deadline) in &self.multi_calls {
            match deadline {
                Some(deadline) if *deadline > now => {}
                Some(_) => {
                    assert_eq!(self.multi_ended.get(call), Some(&1), "{call:?} ends by its deadline (I1)");
                }
                None => assert!(self.multi_ended.get(call).is_none_or(|times| *times == 1)),
            }
        }
    }
}

/// Runs the steps on a new client, and returns the trace.
fn run_client(steps: &[ClientStep], streams: StreamConfig) -> String {
    let limits = ClientLimits {
        calls: 8,
        responses_per_call: 2,
        updates_per_subscription: 2,
        streams: LIMITS,
        ..ClientLimits::DEFAULT
    };
    let config = ClientConfig { limits, streams, opens_streams: true, ..ClientConfig::new("Hats") };
    let mut run = Run::new(Client::new(config, [3; 32]).unwrap());
    run.drain();
    for subscription in run.subscriptions.clone() {
        run.engine.handle_subscribed(run.now, subscription, Ok(()));
    }
    let [bids, responses, stream_channel] = run.subscriptions[..] else { panic!("three subscriptions") };
    let mut caller = Caller::default();
    for client_step in steps {
        let requests = run.frames.iter().filter_map(|frame| match frame {
            Frame::Request(request) => Some(request.request_id.clone()),
            _ => None,
        });
        let requests: Vec<_> = requests.collect();
        match client_step {
            ClientStep::Common(step) => {
                caller.streams.jumped |= matches!(step, CommonStep::Jump(_));
                run.apply(step);
            }
            ClientStep::Stream(stream_step) => {
                let ids: Vec<_> =
                    published(&run.frames).into_iter().map(|(stream_id, _)| stream_id).collect();
                step(&mut run, &mut caller.streams, stream_channel, &ids, stream_step);
            }
            ClientStep::Open { claimed: claim, timeout } => {
                let route = if *claim { claimed() } else { unclaimed() };
                let open = OpenStream { timeout: Some(ms(*timeout)), ..OpenStream::new(route) };
                if let Ok(call) = run.engine.open_stream(run.now, open) {
                    caller.openings.push((call, run.now.time + ms(*timeout)));
                }
            }
            ClientStep::Cancel(index) => {
                if let Some((call, _)) = pick(&caller.openings, index) {
                    run.engine.cancel(run.now, call);
                }
            }
            ClientStep::Bid(index) => {
                let Some((_, request_id)) = pick(&published(&run.frames), index) else { continue };
                let claim =
                    ClaimRequest { request_id, server_id: "SRV_1".into(), affinity: 1.0, handling: false };
                run.engine.handle_frame(run.now, bids, Frame::ClaimRequest(claim));
            }
            ClientStep::Multi { timeout, expected } => {
                let (timeout, expected) = (ms(*timeout), expected.map(usize::from));
                let call = MultiCall {
                    timeout: Some(timeout),
                    expected,
                    ..MultiCall::new(route("Census", MULTI), "")
                };
                if let Ok(call) = run.engine.multi_call(run.now, call) {
                    caller.multi_calls.push((call, Some(run.now.time + timeout)));
                }
            }
            ClientStep::CancelMulti(index) => {
                let calls = caller.multi_calls.len();
                if let Some((call, deadline)) = caller.multi_calls.get_mut(index.index(calls.max(1))) {
                    run.engine.cancel_multi(run.now, *call);
                    *deadline = None;
                }
            }
            ClientStep::Response(index, server) => {
                let request_id = pick(&requests, index).unwrap_or_default();
                let server_id = if *server == 4 { Text::EMPTY } else { format!("SRV_{server}").into() };
                let response = Response { request_id, server_id, sent_at: EPOCH, result: Ok("here".into()) };
                run.engine.handle_frame(run.now, responses, Frame::Response(response));
            }
            ClientStep::Subscribe(queue) => {
                let route = if *queue { route("Rumour", QUEUE) } else { route("Bulletin", MULTI) };
                caller.listeners.extend(run.engine.subscribe(&route, "hats.Update"));
            }
            ClientStep::Unsubscribe(index) => {
                if let Some(listener) = pick(&caller.listeners, index) {
                    run.engine.unsubscribe(listener);
                }
            }
            ClientStep::Update(index, known) => {
                let name = if *known { "hats.Update" } else { "hats.Other" };
                let update =
                    Any { type_url: format!("type.googleapis.com/{name}").into(), value: "new".into() };
                if let Some(listener) = pick(&caller.listeners, index) {
                    run.engine.handle_frame(run.now, listener, Frame::Other(update));
                }
            }
            ClientStep::TakenUpdate(index) => {
                if let Some(listener) = pick(&caller.listeners, index) {
                    run.engine.taken_update(listener);
                }
            }
            ClientStep::Close => run.engine.close(run.now),
        }
        // A tick polls all events, so the deadlines can be checked.
        if let ClientStep::Common(CommonStep::Tick(_) | CommonStep::Jump(_)) = client_step {
            caller.record_events(&mut run);
            caller.check(run.now.time);
        }
        caller.record_events(&mut run);
    }
    run.make_room();
    caller.record_events(&mut run);
    for stream in caller.streams.streams.clone() {
        run.engine.stream_commands().close(run.now, stream, None);
    }
    // Long enough for remembered messages to expire despite jumps of the wall clock.
    for _ in 0..100 {
        run.tick(Duration::from_secs(60), 0);
    }
    caller.record_events(&mut run);
    caller.check(run.now.time);
    let engine = &run.engine;
    let held = engine.held();
    assert_eq!([engine.in_flight(), engine.streams(), engine.sending(), held, engine.remembered()], [0; 5]);
    assert_eq!(run.engine.poll_timeout(), None, "no timer remains");
    run.engine.close(run.now);
    run.tick(Duration::from_secs(10), 0);
    caller.record_events(&mut run);
    assert_eq!((run.engine.listening(), run.engine.poll_timeout()), (0, None));
    for listener in &caller.listeners {
        assert_eq!(caller.unsubscribed.get(listener), Some(&1), "a subscription ends once");
    }
    for stream in &caller.streams.streams {
        assert_eq!(caller.streams.ended.get(stream), Some(&1), "a stream ends once");
    }
    run.trace
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_client_with_streams_keeps_the_contract(
        steps in client_steps(), streams in stream_configs()
    ) {
        let trace = run_client(&steps, streams);
        prop_assert_eq!(run_client(&steps, streams), trace, "same inputs, same outputs");
    }
}
