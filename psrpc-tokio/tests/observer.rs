//! Observers of requests, bids and dropped frames.

mod hats;
mod shop;

use std::time::Duration;

use hats::{
    FIT, Log, ManualBus, PICK, client, echo, fit, late_request, runtime, serve, settle, stray_response,
};
use psrpc_bus_local::LocalBus;
use psrpc_testing::{FaultyBus, Rule};
use psrpc_tokio::bus::{Bus, Offer, ReplyTo, WakeList};
use psrpc_tokio::middleware::Observation;
use psrpc_tokio::proto::{Channel, Frame, StreamBody};
use psrpc_tokio::*;
use shop::{opening, parade, text};

/// Returns an observer that logs observations without their ids.
fn log_to(log: &Log) -> impl Fn(&Observation) + Send + Sync + use<> {
    let log = log.clone();
    move |observation| {
        log.add(match observation {
            Observation::Received { info, client_id, .. } => format!("{info} of {client_id}"),
            Observation::Bid { info, outcome, waited, .. } => {
                format!("{info} {outcome:?} after {waited:?}")
            }
            other => format!("{other:?}"),
        });
    }
}

fn named(id: &str) -> ClientOptions {
    ClientOptions::new().id(id)
}

fn publish(bus: &LocalBus, channel: &Channel, frame: proto::Frame) {
    let _ =
        bus.publish(Offer::new(channel.clone(), frame, ReplyTo::new(|_| ())), &mut WakeList::new()).unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_bid_is_granted_to_one_server_and_lost_by_the_other() {
    let (bus, winner, loser) = (LocalBus::new(), Log::default(), Log::default());
    let handlers = |affinity: f32| {
        Handlers::new(&hats::HATS, ()).unary_with_affinity(
            PICK,
            |_, request| echo(request),
            move |_, _| affinity,
        )
    };
    let mut servers = Vec::new();
    for (affinity, log) in [(0.9, &winner), (0.5, &loser)] {
        let options = ServerOptions::new().observer(log_to(log));
        let server = Server::new(bus.clone(), runtime(), handlers(affinity), options).unwrap();
        server.register(&[PICK], &[]).await.unwrap();
        servers.push(server);
    }
    let client = client(&bus, named("C")).await;
    client.call::<String, String>(PICK, &[], "fez".to_owned()).await.unwrap();
    settle().await;
    assert_eq!(winner.take(), ["Hats.Pick of C", "Hats.Pick Granted after 200ms"]);
    assert_eq!(loser.take(), ["Hats.Pick of C", "Hats.Pick Lost after 200ms"]);
}

#[tokio::test(start_paused = true)]
async fn a_bid_without_a_grant_is_abandoned() {
    let (bus, log) = (LocalBus::new(), Log::default());
    let _server = serve(&bus, ServerOptions::new().observer(log_to(&log)), echo).await;
    let client = client(&bus, named("C")).await;
    let selection = Selection::none().choose(|_| Ok(None)).short_circuit_timeout(Duration::from_millis(10));
    let call = client.call::<String, String>(PICK, &[], "fez".to_owned()).selection(selection);
    assert_eq!(call.await.unwrap_err().reason(), Some(Reason::NotAcceptable));
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(log.take(), ["Hats.Pick of C", "Hats.Pick Abandoned(NotGranted) after 3s"]);
}

#[tokio::test(start_paused = true)]
async fn a_skipped_claim_is_observed() {
    let (bus, log) = (LocalBus::new(), Log::default());
    let options = ServerOptions::new().skip_claim(|_, _| true).observer(log_to(&log));
    let _server = serve(&bus, options, echo).await;
    fit(&client(&bus, named("C")).await, "fez").await.unwrap();
    assert_eq!(log.take(), ["Hats.Fit of C", "Hats.Fit Skipped after 0ns"]);
}

#[tokio::test(start_paused = true)]
async fn a_method_without_claims_has_no_bids_to_observe() {
    static ONE: Service = Service {
        name: "One",
        methods: &[Method::call(
            0,
            "Fit",
            MethodProperties { routing: Routing::Queue, require_claim: false },
        )],
    };
    let (bus, log) = (LocalBus::new(), Log::default());
    let handlers = Handlers::new(&ONE, ()).unary(&ONE.methods[0], |_, request| echo(request));
    let options = ServerOptions::new().observer(log_to(&log));
    let server = Server::new(bus.clone(), runtime(), handlers, options).unwrap();
    server.register(&[&ONE.methods[0]], &[]).await.unwrap();
    let client = Client::new(bus, runtime(), &ONE, named("C")).await.unwrap();
    client.call::<String, String>(&ONE.methods[0], &[], "fez".to_owned()).await.unwrap();
    assert_eq!(log.take(), ["One.Fit of C"]);
}

#[tokio::test(start_paused = true)]
async fn late_requests_and_stray_frames_are_observed() {
    let (bus, server_log, client_log) = (LocalBus::new(), Log::default(), Log::default());
    let _server = serve(&bus, ServerOptions::new().observer(log_to(&server_log)), echo).await;
    let client = client(&bus, named("C").observer(log_to(&client_log))).await;
    let requests = Channel::request::<&str>("Hats", "Fit", &[], FIT.properties.queue());
    publish(&bus, &requests, late_request("RPC_late"));
    publish(&bus, &requests, stray_response("RPC_stray"));
    publish(&bus, &Channel::response("Hats", client.id()), stray_response("RPC_stray"));
    settle().await;
    let stray = |reason| {
        let (request_id, peer) = ("RPC_stray".into(), "SRV_stray".into());
        format!("{:?}", Observation::Dropped(Dropped { reason, request_id, peer, late_by: Duration::ZERO }))
    };
    let late = r#"Expired { request_id: "RPC_late", client_id: "CLI_late", late_by: 2ms }"#;
    assert_eq!(server_log.take(), [late, &stray(Reason::UnexpectedType)]);
    assert_eq!(client_log.take(), [stray(Reason::Late)]);
}

#[tokio::test(start_paused = true)]
async fn a_late_stream_message_is_observed_as_a_dropped_frame_not_as_a_request() {
    let (bus, log, late) = (FaultyBus::new(LocalBus::new(), runtime(), 1), Log::default(), Log::default());
    let (recorder, peers) = (log.clone(), late.clone());
    let options = ServerOptions::new().observer(move |observation| match observation {
        Observation::Dropped(dropped) => {
            recorder.add(format!("{} by {:?}", dropped.reason, dropped.late_by));
            peers.add(dropped.peer.as_str());
        }
        Observation::Expired { .. } => recorder.add("a request expired"),
        _ => {}
    });
    let _server = shop::server(&bus, "elm", options, shop::echo).await;
    let stream = parade(&shop::client(&bus).await).await;
    let is_message = |_: &Channel, frame: &Frame| {
        matches!(frame, Frame::Stream(proto::Stream { body: Some(StreamBody::Message { .. }), .. }))
    };
    bus.inject(Rule::delay(Duration::from_secs(1)).when(is_message));
    let sent = stream.send(text("one")).timeout(Duration::from_millis(100)).await;
    assert!(sent.unwrap_err().is_timed_out());
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(log.take(), ["message expired by 900ms"]);
    assert!(late.take()[0].starts_with("STR_"), "the peer is the stream");
}

#[tokio::test(start_paused = true)]
async fn gaps_are_observed_on_both_sides() {
    let (bus, log) = (ManualBus::default(), Log::default());
    let _server = serve(&bus, ServerOptions::new().observer(log_to(&log)), echo).await;
    let sinks = bus.take();
    sinks[0].gap(Some(3), &mut WakeList::new());
    settle().await;
    assert_eq!(log.take(), ["Gap { lost: Some(3) }"]);
    let _client = client(&bus, named("C").observer(log_to(&log))).await;
    let sinks = bus.take();
    sinks[0].gap(None, &mut WakeList::new());
    settle().await;
    assert_eq!(log.take(), ["Gap { lost: None }"]);
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_an_observer_affects_neither_the_server_nor_other_observers() {
    let (bus, log) = (LocalBus::new(), Log::default());
    let bundle = ServerOptions::new().observer(log_to(&log));
    let options = ServerOptions::new().observer(|_| panic!("on purpose")).with(bundle);
    let _server = serve(&bus, options, echo).await;
    let client = client(&bus, named("C").observer(|_| panic!("on purpose"))).await;
    publish(&bus, &Channel::response("Hats", client.id()), stray_response("RPC_stray"));
    for _ in 0..2 {
        assert_eq!(fit(&client, "fez").await.unwrap(), "fez");
        assert_eq!(log.take(), ["Hats.Fit of C", "Hats.Fit Granted after 0ns"]);
    }
}

#[tokio::test(start_paused = true)]
async fn an_observer_may_use_its_client() {
    let (bus, log) = (LocalBus::new(), Log::default());
    let cell = std::sync::Arc::new(std::sync::OnceLock::<Client>::new());
    let (observed, recorder) = (cell.clone(), log.clone());
    let options = named("C").observer(move |_| {
        let late = observed.get().unwrap().counters().get(Reason::Late);
        recorder.add(format!("{late} late"));
    });
    let client = client(&bus, options).await;
    cell.set(client.clone()).unwrap();
    publish(&bus, &Channel::response("Hats", client.id()), stray_response("RPC_stray"));
    settle().await;
    assert_eq!(log.take(), ["1 late"]);
}

#[tokio::test(start_paused = true)]
async fn the_bid_for_a_stream_and_the_end_of_the_stream_are_observed() {
    let (bus, theirs, ours) = (LocalBus::new(), Log::default(), Log::default());
    let options = ServerOptions::new().observer(log_to(&theirs));
    let _server =
        shop::server(&bus, "elm", options, |stream| async move { Err(stream.closed().await) }).await;
    let client = shop::client_with(&bus, named("C").observer(log_to(&ours))).await;
    let stream = parade(&client).await;
    assert_eq!(theirs.take(), ["Shop.Parade of C", "Shop.Parade Granted after 0ns"]);
    stream.close(hats::error(ErrorCode::NotFound));
    settle().await;
    let ended =
        |reason| format!("StreamEnded {{ info: CallInfo(Shop.Parade), reason: {reason}, code: NotFound }}");
    assert_eq!(ours.take(), [ended("Closed")]);
    assert_eq!(theirs.take(), [ended("ClosedByPeer")]);
    let selection = Selection::none().choose(|_| Ok(None)).short_circuit_timeout(Duration::from_millis(10));
    assert!(opening(&client).selection(selection).await.is_err());
    tokio::time::sleep(Duration::from_secs(4)).await;
    let [received, abandoned] = &theirs.take()[..] else { panic!("expected a request and an abandoned bid") };
    assert_eq!(received, "Shop.Parade of C");
    assert!(abandoned.starts_with("Shop.Parade Abandoned("), "{abandoned}");
}

#[tokio::test(start_paused = true)]
async fn dropped_stream_frames_are_observed_on_both_sides() {
    let (bus, theirs, ours) = (LocalBus::new(), Log::default(), Log::default());
    let options = ServerOptions::new().unread_per_stream(1).observer(log_to(&theirs));
    let server = shop::server(&bus, "elm", options, |stream| async move {
        stream.closed().await;
        // The server keeps the stream for a moment.
        tokio::time::sleep(Duration::from_secs(1)).await;
        Ok(())
    })
    .await;
    let client = shop::client_with(&bus, named("C").observer(log_to(&ours))).await;
    let stream = parade(&client).await;
    theirs.take();
    stream.send(text("one")).await.unwrap();
    stream.send(text("two")).timeout(Duration::from_millis(10)).await.unwrap_err();
    settle().await;
    let dropped = theirs.take().concat();
    assert!(dropped.contains("reason: SlowConsumer"), "{dropped}");
    // Learn the id of the stream, to send frames to it.
    let stream_ids = Log::default();
    let recorder = stream_ids.clone();
    let sink = psrpc_tokio::bus::Sink::new(move |delivery, _| {
        if let psrpc_tokio::bus::Delivery::Frame(Frame::Stream(frame)) = delivery {
            recorder.add(frame.stream_id.as_str());
        }
    });
    let to_server = Channel::stream_to_server::<&str>("Shop", "Parade", &[]);
    let _subscription = bus.subscribe(&to_server, SubscriptionKind::Plain, sink, &mut WakeList::new());
    stream.close(None);
    settle().await;
    ours.take();
    theirs.take();
    let stray = Frame::Stream(proto::Stream {
        stream_id: stream_ids.take()[0].as_str().into(),
        request_id: "RQ_stray".into(),
        sent_at: runtime().now().wall.as_unix_nanos(),
        expiry: runtime().now().wall.as_unix_nanos() + 1_000_000_000,
        body: Some(StreamBody::Message { payload: Vec::new().into() }),
    });
    publish(&bus, &to_server, stray.clone());
    publish(&bus, &Channel::stream_to_client("Shop", "C"), stray);
    settle().await;
    for log in [ours, theirs] {
        let dropped = log.take();
        assert!(dropped.len() == 1 && dropped[0].contains("reason: NoStream"), "{dropped:?}");
    }
    assert_eq!(server.streams(), 1);
}
