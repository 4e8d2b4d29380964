//! The contract of a server that takes streams and publishes updates.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::Index;
use psrpc_engine::proto::{Any, ClaimResponse, Frame, Metadata, Stream, StreamBody, Text};
use psrpc_engine::{
    Engine, RequestHandle, Server, ServerConfig, ServerEvent, ServerLimits, StreamConfig, UpdateHandle,
};

use super::{
    LIMITS, StreamStep, StreamUser, cause, claimed, pick, step, stream_configs, stream_steps, unclaimed,
};
use crate::fixture::{QUEUE, ms, route};
use crate::steps::{CommonStep, Run, common_steps};

#[derive(Clone, Debug)]
enum ServerStep {
    Common(CommonStep),
    Stream(StreamStep),
    Open { claimed: bool, id: u8, stream: u8, client: u8, timeout: i64 },
    Bid(Index),
    Reject(Index),
    Grant(u8, bool),
    Finish(Index, bool),
    Publish(u64),
    CancelUpdate(Index),
    Deregister(Index),
    Drain,
    Kill,
}

fn server_steps() -> impl Strategy<Value = Vec<ServerStep>> {
    let step = prop_oneof![
        400 => common_steps().prop_map(ServerStep::Common),
        600 => stream_steps().prop_map(ServerStep::Stream),
        200 => (any::<bool>(), 0..8u8, 0..5u8, 0..2u8, 0..4000i64).prop_map(
            |(claimed, id, stream, client, timeout)| ServerStep::Open { claimed, id, stream, client, timeout }
        ),
        200 => any::<Index>().prop_map(ServerStep::Bid),
        10 => any::<Index>().prop_map(ServerStep::Reject),
        100 => (0..8u8, prop::bool::weighted(0.9)).prop_map(|(id, ours)| ServerStep::Grant(id, ours)),
        30 => any::<(Index, bool)>().prop_map(|(stream, ok)| ServerStep::Finish(stream, ok)),
        40 => (0..3000u64).prop_map(ServerStep::Publish),
        10 => any::<Index>().prop_map(ServerStep::CancelUpdate),
        5 => any::<Index>().prop_map(ServerStep::Deregister),
        4 => Just(ServerStep::Drain),
        2 => Just(ServerStep::Kill),
    ];
    proptest::collection::vec(step, 0..150)
}

/// Runs the steps on a new server, and returns the trace.
fn run_server(steps: &[ServerStep], streams: StreamConfig) -> String {
    let limits =
        ServerLimits { requests: 6, remembered: 30, updates: 3, streams: LIMITS, ..ServerLimits::DEFAULT };
    let id = "SRV_0".into();
    let mut run = Run::new(
        Server::new(ServerConfig { id, limits, streams, ..ServerConfig::new("Hats") }, [4; 32]).unwrap(),
    );
    let routes = [claimed(), unclaimed()];
    let registrations = routes.map(|route| run.engine.register(vec![route]).unwrap());
    run.drain();
    for subscription in run.subscriptions.clone() {
        run.engine.handle_subscribed(run.now, subscription, Ok(()));
    }
    let [grants, parade, owner] = run.subscriptions[..] else { panic!("three subscriptions") };
    let mut user = StreamUser::default();
    let (mut requests, mut updates, mut updated) = (Vec::new(), BTreeMap::new(), BTreeMap::<_, u32>::new());
    let ids: Vec<Text> = (0..5).map(|stream| format!("STR_{stream}").into()).collect();
    for server_step in steps {
        match server_step {
            ServerStep::Common(step) => {
                user.jumped |= matches!(step, CommonStep::Jump(_));
                run.apply(step);
            }
            ServerStep::Stream(stream_step) => step(&mut run, &mut user, parade, &ids, stream_step),
            ServerStep::Open { claimed, id, stream, client, timeout } => {
                let (node_id, metadata) = (format!("CLI_{client}").into(), Metadata::new());
                let sent_at = run.now.wall.as_unix_nanos();
                let frame = Stream {
                    stream_id: ids[usize::from(*stream)].clone(),
                    request_id: format!("REQ_{id}").into(),
                    sent_at,
                    expiry: sent_at + timeout * 1_000_000,
                    body: Some(StreamBody::Open { node_id, metadata }),
                };
                let subscription = if *claimed { parade } else { owner };
                run.engine.handle_frame(run.now, subscription, Frame::Stream(frame));
            }
            ServerStep::Bid(index) => {
                if let Some(request) = pick(&requests, index) {
                    run.engine.bid(run.now, request, 1.0);
                }
            }
            ServerStep::Reject(index) => {
                if let Some(request) = pick(&requests, index) {
                    run.engine.reject(run.now, request, cause());
                }
            }
            ServerStep::Grant(id, ours) => {
                let server_id = if *ours { "SRV_0" } else { "SRV_1" }.into();
                let grant = ClaimResponse { request_id: format!("REQ_{id}").into(), server_id };
                run.engine.handle_frame(run.now, grants, Frame::ClaimResponse(grant));
            }
            ServerStep::Finish(index, ok) => {
                if let Some(stream) = pick(&user.streams, index) {
                    let result = if *ok { Ok(()) } else { Err(cause()) };
                    run.engine.finish_stream(run.now, stream, result);
                }
            }
            ServerStep::Publish(timeout) => {
                let update = Any { type_url: "type.googleapis.com/hats.Update".into(), value: "new".into() };
                let published =
                    run.engine.publish(run.now, &route("Rumour", QUEUE), update, Some(ms(*timeout)));
                if let Ok(update) = published {
                    updates.insert(update, true);
                }
            }
            ServerStep::CancelUpdate(index) => {
                let all: Vec<_> = updates.keys().copied().collect();
                if let Some(update) = pick(&all, index) {
                    run.engine.cancel_update(run.now, update);
                    updates.insert(update, false);
                }
            }
            ServerStep::Deregister(index) => {
                run.engine.deregister(run.now, *index.get(&registrations));
            }
            ServerStep::Drain => run.engine.drain(run.now),
            ServerStep::Kill => run.engine.kill(run.now),
        }
        run.drain();
        record_events(&mut run, &mut user, &mut requests, &mut updated);
        if let ServerStep::Common(CommonStep::Tick(_) | CommonStep::Jump(_)) = server_step {
            user.check(run.now.time);
        }
    }
    run.make_room();
    run.engine.drain(run.now);
    run.confirm();
    for _ in 0..100 {
        run.tick(Duration::from_secs(60), 0);
        run.confirm();
    }
    record_events(&mut run, &mut user, &mut requests, &mut updated);
    user.check(run.now.time);
    let engine = &run.engine;
    let remaining =
        [engine.in_flight(), engine.streams(), engine.sending(), engine.publishing(), engine.remembered()];
    assert_eq!((remaining, engine.held()), ([0; 5], 0), "no state remains");
    assert_eq!(run.engine.poll_timeout(), None, "no timer remains");
    for (update, active) in updates {
        let ended = updated.get(&update).copied().unwrap_or_default();
        assert!(ended == 1 || (ended == 0 && !active), "{update:?} ends once, not {ended} times");
    }
    for stream in &user.streams {
        assert_eq!(user.ended.get(stream), Some(&1), "a stream ends once");
    }
    run.trace
}

fn record_events(
    run: &mut Run<Server>,
    user: &mut StreamUser,
    requests: &mut Vec<RequestHandle>,
    updated: &mut BTreeMap<UpdateHandle, u32>,
) {
    for event in run.events.drain(..) {
        match event {
            ServerEvent::Received(received) => requests.push(received.request),
            ServerEvent::Accepted { stream, .. } => user.streams.push(stream),
            ServerEvent::Stream(event) => user.record(event),
            ServerEvent::Updated { update, .. } => *updated.entry(update).or_default() += 1,
            _ => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_server_with_streams_keeps_the_contract(
        steps in server_steps(), streams in stream_configs()
    ) {
        let trace = run_server(&steps, streams);
        prop_assert_eq!(run_server(&steps, streams), trace, "same inputs, same outputs");
    }
}
