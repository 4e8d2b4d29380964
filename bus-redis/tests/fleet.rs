//! Fleets with Go peers: the bytes and locks on the wire are the recorded ones.

mod common;

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use futures_core::Stream;
use psrpc_bus_redis::{RedisBus, RedisOptions};
use psrpc_servers::Server;
use psrpc_tokio::bus::{Delivery, Inbox, Subscription};
use psrpc_tokio::proto::{Channel, Compression, Frame, FrameLimits, Request};
use psrpc_tokio::{Runtime, SubscriptionKind};
use psrpc_vectors::{Bus as RecordedBus, Conversation, Event, RECORDINGS, unescaped};
use redis::aio::{MultiplexedConnection, PubSubStream};

use self::common::{connect_with as connect, foreign, next, runtime, subscribe_live};

async fn publish(bus: &RedisBus, channel: &Channel, frame: Frame) {
    common::publish(bus, channel, frame).await.unwrap();
}

/// Returns the recorded conversations, each with the version of Go that took part.
fn conversations() -> impl Iterator<Item = (&'static str, Conversation)> {
    RECORDINGS.iter().filter(|recording| recording.bus == RecordedBus::Redis).flat_map(|recording| {
        recording.conversations().into_iter().map(|conversation| (recording.version, conversation))
    })
}

/// Returns the channel with a legacy name, and the kind of its subscriptions.
fn channel_of(legacy: &str) -> (Channel, SubscriptionKind) {
    let parts: Vec<_> = legacy.split('|').map(unescaped).collect();
    let parts: Vec<_> = parts.iter().map(String::as_str).collect();
    let (channel, kind) = match parts[..] {
        [service, id, "STR"] if id.starts_with("CLI_") => {
            (Channel::stream_to_client(service, id), SubscriptionKind::Plain)
        }
        [service, method, ref topic @ .., "STR"] => {
            (Channel::stream_to_server(service, method, topic), SubscriptionKind::Plain)
        }
        [service, id, "CLAIM"] => (Channel::claim_request(service, id), SubscriptionKind::Plain),
        [service, id, "RES"] => (Channel::response(service, id), SubscriptionKind::Plain),
        [service, method, ref topic @ .., "RCLAIM"] => {
            (Channel::claim_response(service, method, topic), SubscriptionKind::Plain)
        }
        [service, method, ref topic @ .., "REQ"] => {
            let queue = method != "Pick" && method != "Bulletin" && !method.ends_with("Census");
            let kind = if queue { SubscriptionKind::Queue } else { SubscriptionKind::Plain };
            (Channel::request(service, method, topic, queue), kind)
        }
        _ => panic!("no channel has the legacy name {legacy}"),
    };
    assert_eq!(channel.legacy(), legacy);
    (channel, kind)
}

/// Replays a recorded conversation, with one [`RedisBus`] for each peer.
struct Replay {
    context: String,
    conversation: Conversation,
    /// The buses by `role:ID`.
    buses: BTreeMap<String, RedisBus>,
    subscribers: Vec<(String, SubscriptionKind, Inbox, Subscription)>,
    foreign: MultiplexedConnection,
    messages: PubSubStream,
    /// The number of frames published by our buses.
    ours: usize,
    commands: Pin<Box<dyn Stream<Item = String> + Send>>,
}

impl Replay {
    async fn new(server: &Server, version: &str, conversation: Conversation) -> Self {
        let context = format!("{}, Go {version}", conversation.id);
        let client = redis::Client::open(server.url()).unwrap();
        let (mut sink, messages) = client.get_async_pubsub().await.unwrap().split();
        sink.psubscribe("*|*").await.unwrap();
        let monitor = client.get_async_monitor().await.unwrap();
        let mut buses = BTreeMap::new();
        for peer in &conversation.participants {
            // The recorded requests expired long ago.
            let bus = connect(server, RedisOptions::new().skew_allowance(Duration::MAX)).await;
            buses.insert(format!("{}:{}", peer.role, peer.id), bus);
        }
        let mut subscribers = Vec::new();
        for subscription in &conversation.subscriptions {
            let (channel, kind) = channel_of(&subscription.channel);
            let Some(bus) = buses.get(&subscription.by) else { continue };
            // This bus has two subscribers, which share a lock.
            let twice = conversation.id == "subscription-queue-one-bus" && kind == SubscriptionKind::Queue;
            for _ in 0..if twice { 2 } else { 1 } {
                let (inbox, handle) = subscribe_live(bus, &channel, kind).await;
                subscribers.push((subscription.channel.clone(), kind, inbox, handle));
            }
        }
        let mut foreign = foreign(server).await;
        // An update has no id, so its lock key is the same in every recording.
        redis::cmd("FLUSHALL").exec_async(&mut foreign).await.unwrap();
        let commands = Box::pin(monitor.into_on_message::<String>());
        Self { context, conversation, buses, subscribers, foreign, messages, ours: 0, commands }
    }

    /// Publishes the frames of each peer and checks that the bus delivers the same bytes to the
    /// subscribers. Returns how many frames were published by our buses.
    async fn run(mut self) -> usize {
        let frames = std::mem::take(&mut self.conversation.frames);
        for (index, event) in frames.iter().enumerate() {
            let Event::Publish(recorded) = event else { continue };
            let bytes = recorded.bytes();
            let (frame, _) = Frame::decode(&bytes.clone().into(), &FrameLimits::DEFAULT)
                .unwrap_or_else(|_| (Frame::Raw(bytes.clone().into()), "".into()));
            match self.buses.get(&recorded.from) {
                // Frames that this implementation encodes differently on purpose are covered by the
                // tests of psrpc-proto.
                Some(bus) if frame.encode(channel_of(&recorded.channel).0.local()) == bytes => {
                    publish(bus, &channel_of(&recorded.channel).0, frame).await;
                    self.ours += 1;
                }
                _ => {
                    let mut command = redis::cmd("PUBLISH");
                    let sent = command.arg(&recorded.channel).arg(&bytes).exec_async(&mut self.foreign);
                    sent.await.unwrap();
                }
            }
            let message = poll_fn(|cx| Pin::new(&mut self.messages).poll_next(cx)).await.unwrap();
            let message = (message.get_channel_name(), message.get_payload_bytes());
            assert_eq!(message, (&*recorded.channel, &bytes[..]), "{}", self.context);
            let locks = frames.iter().filter_map(|event| match event {
                Event::Lock(lock) if lock.frame == index => Some(lock),
                _ => None,
            });
            let locks: Vec<_> = locks.collect();
            self.check_locks(&locks.iter().map(|lock| lock.args[1].as_str()).collect::<Vec<_>>()).await;
            self.check_delivered(&recorded.channel, locks.iter().any(|lock| lock.won)).await;
        }
        self.ours
    }

    /// Checks that the servers tried the same locks as in Go.
    async fn check_locks(&mut self, keys: &[&str]) {
        for key in keys {
            let command = loop {
                let command = poll_fn(|cx| self.commands.as_mut().poll_next(cx)).await.unwrap();
                if command.to_uppercase().contains("\"SET\"") {
                    break command;
                }
            };
            let expected = format!("\"SET\" \"{key}\" \"1\" \"EX\" \"5\" \"NX\"");
            assert!(command.ends_with(&expected), "{}: {command}, expected {expected}", self.context);
        }
    }

    /// Checks that each plain subscriber of a channel gets the frame, and one of the queue
    /// subscribers if the lock was acquired. An identical update takes no lock.
    async fn check_delivered(&mut self, channel: &str, locked: bool) {
        let (mut waiting, mut taken) = (Vec::new(), false);
        for (_, kind, inbox, _) in self.subscribers.iter_mut().filter(|(of, ..)| of == channel) {
            match kind {
                SubscriptionKind::Plain => assert!(matches!(next(inbox).await, Delivery::Frame(_))),
                SubscriptionKind::Queue => waiting.push(inbox),
            }
        }
        if waiting.is_empty() || !locked {
            return;
        }
        poll_fn(|cx| {
            for inbox in &mut waiting {
                if let Poll::Ready(Some(Delivery::Frame(_))) = Pin::new(&mut **inbox).poll_next(cx) {
                    assert!(!taken, "{}: two queue members got the frame", self.context);
                    taken = true;
                }
            }
            if taken { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_recorded_conversations_are_the_same_over_our_bus() {
    let server = Server::redis(&[]);
    let (mut replayed, mut ours) = (0, 0);
    for (version, conversation) in conversations() {
        // Go takes a lock here; this implementation does not, on purpose.
        if conversation.id != "request-expired-from-recorder" {
            ours += Replay::new(&server, version, conversation).await.run().await;
            replayed += 1;
        }
    }
    assert_eq!(replayed, 359, "conversations of four versions of Go");
    assert_eq!(ours, 819, "frames that our bus published");
}

fn fit() -> Channel {
    Channel::request::<&str>("Hats", "Fit", &[], true)
}

/// Returns a request that is sent now and expires after `timeout`.
fn request(id: &str, timeout: Duration) -> Frame {
    let now = runtime().now().wall;
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

/// Returns the lock key of published bytes.
fn key_of(bytes: &[u8]) -> String {
    use base64::Engine;
    use sha2::Digest;

    base64::engine::general_purpose::STANDARD.encode(sha2::Sha256::digest(bytes))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frame_locked_by_a_peer_is_not_delivered() {
    let server = Server::redis(&[]);
    let bus = connect(&server, RedisOptions::new()).await;
    let mut foreign = foreign(&server).await;
    let (mut inbox, _subscription) = subscribe_live(&bus, &fit(), SubscriptionKind::Queue).await;
    for (id, locked) in [("REQ_1", true), ("REQ_2", false)] {
        let bytes = request(id, Duration::from_secs(60)).encode(fit().local());
        if locked {
            redis::cmd("SET").arg(key_of(&bytes)).arg(7).exec_async(&mut foreign).await.unwrap();
        }
        redis::cmd("PUBLISH").arg(fit().legacy()).arg(&bytes[..]).exec_async(&mut foreign).await.unwrap();
    }
    assert_eq!(id_of(&next(&mut inbox).await), "REQ_2");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lock_key_of_a_compressed_frame_is_the_digest_of_the_published_bytes() {
    let server = Server::redis(&[]);
    let compressing = connect(&server, RedisOptions::new().compression(Compression::DEFAULT)).await;
    let plain = connect(&server, RedisOptions::new()).await;
    let mut foreign = foreign(&server).await;
    let (mut inbox, _subscription) = subscribe_live(&plain, &fit(), SubscriptionKind::Queue).await;
    for (id, locked) in [("REQ_1", false), ("REQ_2", true), ("REQ_3", false)] {
        let Frame::Request(request) = request(id, Duration::from_secs(60)) else { unreachable!() };
        let frame = Frame::Request(Request { payload: vec![7; 100 * 1024].into(), ..request });
        let bytes = frame.encode_with(fit().local(), Some(Compression::DEFAULT));
        assert!(bytes.len() < 1_000);
        let key = key_of(&bytes);
        if locked {
            redis::cmd("SET").arg(key).arg(7).exec_async(&mut foreign).await.unwrap();
            publish(&compressing, &fit(), frame).await;
        } else {
            publish(&compressing, &fit(), frame.clone()).await;
            let delivery = next(&mut inbox).await;
            assert!(
                matches!(&delivery, Delivery::Frame(received) if *received == frame),
                "{}",
                id_of(&delivery)
            );
            let locks: i64 = redis::cmd("EXISTS").arg(key).query_async(&mut foreign).await.unwrap();
            assert_eq!(locks, 1, "{id}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_channel_in_an_envelope_is_written_as_in_go_and_ignored_on_receipt() {
    let server = Server::redis(&[]);
    let bus = connect(&server, RedisOptions::new()).await;
    let mut foreign = foreign(&server).await;
    let (mut inbox, _subscription) = subscribe_live(&bus, &fit(), SubscriptionKind::Queue).await;
    for (id, local) in
        [("REQ_1", "Fit.REQ"), ("REQ_2", ""), ("REQ_3", "Pick.RCLAIM"), ("REQ_4", "no channel")]
    {
        let bytes = request(id, Duration::from_secs(60)).encode(local);
        redis::cmd("PUBLISH").arg(fit().legacy()).arg(&bytes[..]).exec_async(&mut foreign).await.unwrap();
        assert_eq!(id_of(&next(&mut inbox).await), id);
    }
    let client = redis::Client::open(server.url()).unwrap();
    let (mut sink, mut messages) = client.get_async_pubsub().await.unwrap().split();
    let bids = Channel::claim_request("Hats", "CLI_1");
    for (channel, local) in [(fit(), "Fit.REQ"), (bids, "")] {
        sink.subscribe(channel.legacy()).await.unwrap();
        publish(&bus, &channel, request("REQ_5", Duration::from_secs(60))).await;
        let message = poll_fn(|cx| Pin::new(&mut messages).poll_next(cx)).await.unwrap();
        let bytes = message.get_payload_bytes().to_vec().into();
        assert_eq!(Frame::decode(&bytes, &FrameLimits::DEFAULT).unwrap().1, local);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expired_request_takes_no_lock() {
    let server = Server::redis(&[]);
    let bus = connect(&server, RedisOptions::new()).await;
    let mut foreign = foreign(&server).await;
    let (mut inbox, _subscription) = subscribe_live(&bus, &fit(), SubscriptionKind::Queue).await;
    publish(&bus, &fit(), request("REQ_1", Duration::ZERO)).await;
    assert_eq!(id_of(&next(&mut inbox).await), "REQ_1", "its server counts it as expired");
    let locks: i64 = redis::cmd("DBSIZE").query_async(&mut foreign).await.unwrap();
    assert_eq!(locks, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_lock_is_a_gap() {
    let server = Server::redis(&[]);
    let mut foreign = foreign(&server).await;
    let mut command = redis::cmd("ACL");
    for word in "SETUSER hatter on >right ~* &* +@all -set".split(' ') {
        command.arg(word);
    }
    command.exec_async(&mut foreign).await.unwrap();
    let bus = RedisBus::connect(&server.url_with("hatter:right@"), runtime()).await.unwrap();
    let (mut inbox, _subscription) = subscribe_live(&bus, &fit(), SubscriptionKind::Queue).await;
    publish(&bus, &fit(), request("REQ_1", Duration::from_secs(60))).await;
    assert!(matches!(next(&mut inbox).await, Delivery::Gap(Some(1))));
}

/// With little room for locks, each frame is either delivered or reported as a gap. None is locked
/// and then lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_bus_loses_no_locked_frame_of_a_dropped_subscription() {
    let server = Server::redis(&[]);
    let bus = connect(&server, RedisOptions::new().queue_bytes(4000)).await;
    let mut foreign = foreign(&server).await;
    for round in 0..100 {
        let (mut inbox, subscription) = subscribe_live(&bus, &fit(), SubscriptionKind::Queue).await;
        let mut pipeline = redis::pipe();
        for number in 0..60 {
            let bytes = request(&format!("REQ_{round}_{number}"), Duration::from_secs(60)).encode("");
            pipeline.cmd("PUBLISH").arg(fit().legacy()).arg(&bytes[..]);
        }
        let reached: Vec<u64> = pipeline.query_async(&mut foreign).await.unwrap();
        drop(subscription);
        let mut accounted = 0;
        while let Some(delivery) = poll_fn(|cx| Pin::new(&mut inbox).poll_next(cx)).await {
            match delivery {
                Delivery::Ended(None) => break,
                Delivery::Frame(_) => accounted += 1,
                Delivery::Gap(lost) => accounted += lost.expect("the bus knows the count"),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(accounted, reached.into_iter().sum::<u64>(), "in round {round}");
    }
}

/// Invariant I14: frames that arrived before the end was confirmed are delivered, including frames
/// that were waiting for their locks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_received_before_an_unsubscribe_are_delivered() {
    let server = Server::redis(&[]);
    let bus = connect(&server, RedisOptions::new()).await;
    for round in 0..50 {
        let (mut inbox, subscription) = subscribe_live(&bus, &fit(), SubscriptionKind::Queue).await;
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
