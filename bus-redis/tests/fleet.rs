//! Side by side with Go's fleets: bytes and locks on the wire are those of the recordings.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::mpsc;
use std::time::Duration;

use futures_core::Stream;
use psrpc_bus_redis::{RedisBus, RedisOptions};
use psrpc_servers::Server;
use psrpc_tokio::bus::{Bus, Delivery, Inbox, Receipt, Subscription};
use psrpc_tokio::proto::{Channel, Frame, FrameLimits, Request};
use psrpc_tokio::{Runtime, SubscriptionKind, TokioRuntime};
use psrpc_vectors::{Bus as RecordedBus, Event, RECORDINGS};
use redis::aio::MultiplexedConnection;

async fn connect(server: &Server, options: RedisOptions) -> RedisBus {
    RedisBus::connect_with(&server.url(), TokioRuntime::current().unwrap(), options).await.unwrap()
}

/// A connection of a peer that is not ours.
async fn foreign(server: &Server) -> MultiplexedConnection {
    let client = redis::Client::open(server.url()).unwrap();
    client.get_multiplexed_async_connection().await.unwrap()
}

async fn next(inbox: &mut Inbox) -> Delivery {
    poll_fn(|cx| Pin::new(&mut *inbox).poll_next(cx)).await.expect("the subscription goes on")
}

async fn listen(bus: &RedisBus, channel: &Channel, kind: SubscriptionKind) -> (Inbox, Subscription) {
    let (sink, mut inbox) = Inbox::new(1000);
    let subscription = bus.subscribe(channel, kind, sink);
    assert!(matches!(next(&mut inbox).await, Delivery::Live));
    (inbox, subscription)
}

async fn publish(bus: &RedisBus, channel: &Channel, frame: Frame) {
    let (tell, told) = mpsc::channel();
    bus.publish(channel, frame, Receipt::new(move |result| tell.send(result).unwrap())).unwrap();
    tokio::task::spawn_blocking(move || told.recv().unwrap().unwrap()).await.unwrap();
}

/// The recorded frames of every Redis fleet, each with its channel, and the key of its lock if it was locked.
fn recorded() -> Vec<(String, Vec<u8>, Option<String>)> {
    let mut frames = Vec::new();
    for recording in RECORDINGS.iter().filter(|recording| recording.bus == RecordedBus::Redis) {
        for conversation in recording.conversations() {
            for (index, event) in conversation.frames.iter().enumerate() {
                let Event::Publish(publish) = event else { continue };
                let lock = conversation.frames.iter().find_map(|event| match event {
                    Event::Lock(lock) if lock.frame == index => Some(lock.args[1].clone()),
                    _ => None,
                });
                frames.push((publish.channel.clone(), publish.bytes(), lock));
            }
        }
    }
    frames
}

/// The channel with a legacy name, where that has no characters that were replaced in it.
fn channel_of(legacy: &str) -> Option<Channel> {
    let parts: Vec<_> = legacy.split('|').collect();
    let channel = match parts[..] {
        [service, id, "CLAIM"] => Channel::claim_request(service, id),
        [service, id, "RES"] => Channel::response(service, id),
        [service, method, ref topic @ .., "REQ"] => Channel::request(service, method, topic, true),
        [service, method, ref topic @ .., "RCLAIM"] => Channel::claim_response(service, method, topic),
        _ => return None,
    };
    (channel.legacy() == legacy).then_some(channel)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_are_on_the_wire_as_go_publishes_them() {
    let server = Server::redis(&[]);
    let bus = connect(&server, RedisOptions::new()).await;
    let client = redis::Client::open(server.url()).unwrap();
    let (mut sink, mut messages) = client.get_async_pubsub().await.unwrap().split();
    sink.psubscribe("*").await.unwrap();
    let mut seen = 0;
    for (legacy, bytes, _) in recorded() {
        let (frame, _) = Frame::decode(&bytes.clone().into(), &FrameLimits::DEFAULT).unwrap();
        // Where we write something else, and mean to, is for the tests of the wire to say.
        let Some(channel) = channel_of(&legacy).filter(|_| frame.encode("") == bytes) else { continue };
        publish(&bus, &channel, frame).await;
        let message = poll_fn(|cx| Pin::new(&mut messages).poll_next(cx)).await.unwrap();
        assert_eq!((message.get_channel_name(), message.get_payload_bytes()), (&*legacy, &bytes[..]));
        seen += 1;
    }
    assert!(seen > 300, "only {seen} frames");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn locks_have_the_keys_that_go_takes() {
    let server = Server::redis(&[]);
    // The recorded requests have expired long since.
    let options = RedisOptions::new().skew_allowance(Duration::MAX);
    let bus = connect(&server, options).await;
    let mut foreign = foreign(&server).await;
    let locked: Vec<_> =
        recorded().into_iter().filter_map(|(channel, bytes, key)| Some((channel, bytes, key?))).collect();
    assert!(locked.len() > 50, "only {} locks", locked.len());
    for (legacy, bytes, key) in locked {
        let Some(channel) = channel_of(&legacy) else { continue };
        let (mut inbox, _subscription) = listen(&bus, &channel, SubscriptionKind::Queue).await;
        redis::cmd("DEL").arg(&key).exec_async(&mut foreign).await.unwrap();
        redis::cmd("PUBLISH").arg(&legacy).arg(&bytes).exec_async(&mut foreign).await.unwrap();
        assert!(matches!(next(&mut inbox).await, Delivery::Frame(_)));
        let left: i64 = redis::cmd("TTL").arg(&key).query_async(&mut foreign).await.unwrap();
        assert!((1..=5).contains(&left), "the lock of {legacy} ends in {left} s");
        // A peer that asks now does not get it.
        let mut take = redis::cmd("SET");
        let taken: Option<String> =
            take.arg(&key).arg(7).arg("EX").arg(5).arg("NX").query_async(&mut foreign).await.unwrap();
        assert_eq!(taken, None);
    }
}

fn fit() -> Channel {
    Channel::request::<&str>("Hats", "Fit", &[], true)
}

/// A request of this moment that ends after `timeout`.
fn request(id: &str, timeout: Duration) -> Frame {
    let now = TokioRuntime::current().unwrap().now().wall;
    Frame::Request(Request {
        request_id: id.into(),
        client_id: "CLI_1".into(),
        sent_at: now.as_unix_nanos(),
        expiry: (now + timeout).as_unix_nanos(),
        ..Request::default()
    })
}

fn id_of(delivery: &Delivery) -> &str {
    match delivery {
        Delivery::Frame(Frame::Request(request)) => request.request_id.as_str(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_peer_has_locked_is_left_to_it() {
    use base64::Engine;
    use sha2::Digest;

    let server = Server::redis(&[]);
    let bus = connect(&server, RedisOptions::new()).await;
    let mut foreign = foreign(&server).await;
    let (mut inbox, _subscription) = listen(&bus, &fit(), SubscriptionKind::Queue).await;
    for (id, locked) in [("REQ_1", true), ("REQ_2", false)] {
        let bytes = request(id, Duration::from_secs(60)).encode("");
        if locked {
            let key = base64::engine::general_purpose::STANDARD.encode(sha2::Sha256::digest(&bytes));
            redis::cmd("SET").arg(key).arg(7).exec_async(&mut foreign).await.unwrap();
        }
        redis::cmd("PUBLISH").arg(fit().legacy()).arg(&bytes[..]).exec_async(&mut foreign).await.unwrap();
    }
    assert_eq!(id_of(&next(&mut inbox).await), "REQ_2");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expired_request_takes_no_lock() {
    let server = Server::redis(&[]);
    let bus = connect(&server, RedisOptions::new()).await;
    let mut foreign = foreign(&server).await;
    let (mut inbox, _subscription) = listen(&bus, &fit(), SubscriptionKind::Queue).await;
    publish(&bus, &fit(), request("REQ_1", Duration::ZERO)).await;
    assert_eq!(id_of(&next(&mut inbox).await), "REQ_1", "whoever serves it counts it as expired");
    let locks: i64 = redis::cmd("DBSIZE").query_async(&mut foreign).await.unwrap();
    assert_eq!(locks, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frame_whose_lock_cannot_be_had_is_a_gap() {
    let server = Server::redis(&[]);
    let mut foreign = foreign(&server).await;
    let mut command = redis::cmd("ACL");
    for word in "SETUSER hatter on >right ~* &* +@all -set".split(' ') {
        command.arg(word);
    }
    command.exec_async(&mut foreign).await.unwrap();
    let runtime = TokioRuntime::current().unwrap();
    let bus = RedisBus::connect(&server.url_with("hatter:right@"), runtime).await.unwrap();
    let (mut inbox, _subscription) = listen(&bus, &fit(), SubscriptionKind::Queue).await;
    publish(&bus, &fit(), request("REQ_1", Duration::from_secs(60))).await;
    assert!(matches!(next(&mut inbox).await, Delivery::Gap(Some(1))));
}

/// Invariant I14: what was delivered before the end was confirmed is handed on, also what still waited for its lock.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_came_in_before_the_unsubscribe_is_handed_on() {
    let server = Server::redis(&[]);
    let bus = connect(&server, RedisOptions::new()).await;
    for round in 0..50 {
        let (mut inbox, subscription) = listen(&bus, &fit(), SubscriptionKind::Queue).await;
        for number in 0..20 {
            publish(&bus, &fit(), request(&format!("REQ_{round}_{number}"), Duration::from_secs(60))).await;
        }
        drop(subscription);
        let mut numbers = Vec::new();
        while let Some(delivery) = poll_fn(|cx| Pin::new(&mut inbox).poll_next(cx)).await {
            match &delivery {
                Delivery::Ended(None) => break,
                delivery => numbers.push(id_of(delivery).rsplit('_').next().unwrap().parse::<u32>().unwrap()),
            }
        }
        assert_eq!(numbers, (0..20).collect::<Vec<_>>(), "in round {round}");
    }
}
