//! Replays the recorded conversations over a real server, with one of our buses for each peer.

use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use futures_core::Stream;
use psrpc::SubscriptionKind;
use psrpc::bus::Delivery;
use psrpc::proto::{Channel, Frame, FrameLimits};
use psrpc_bus_nats::NatsBus;
use psrpc_servers::Server;
use psrpc_vectors::{Bus, Conversation, Event, Publish, RECORDINGS, unescaped};

use crate::support::{Subscriber, publish, runtime};

/// Returns the recorded conversations, each with the version of Go that took part.
fn conversations() -> impl Iterator<Item = (&'static str, Conversation)> {
    RECORDINGS.iter().filter(|recording| recording.bus == Bus::Nats).flat_map(|recording| {
        recording.conversations().into_iter().map(|conversation| (recording.version, conversation))
    })
}

/// Returns the channel for a subject and a local name.
fn channel_of(subject: &str, local: &str) -> Channel {
    let parts: Vec<_> = subject.split('.').map(unescaped).collect();
    let parts: Vec<_> = parts.iter().map(String::as_str).collect();
    let method = local.split('.').next().unwrap_or_default();
    let channel = match parts[..] {
        ["CLI", service, id, "CLAIM"] => Channel::claim_request(service, id),
        ["CLI", service, id, "RES"] => Channel::response(service, id),
        ["CLI", service, id, "STR"] => Channel::stream_to_client(service, id),
        ["SRV", service, ref topic @ ..] if local.ends_with(".STR") => {
            Channel::stream_to_server(service, method, topic)
        }
        ["SRV", service, ref topic @ ..] if local.ends_with(".RCLAIM") => {
            Channel::claim_response(service, method, topic)
        }
        ["SRV", service, ref topic @ .., "Q"] => Channel::request(service, method, topic, true),
        ["SRV", service, ref topic @ ..] => Channel::request(service, method, topic, false),
        _ => panic!("no channel for the subject {subject}"),
    };
    assert_eq!((channel.server(), channel.local()), (subject, local));
    channel
}

/// Returns `true` for bytes that the recorder published on a server's subject without an envelope.
fn is_no_envelope(frame: &Publish) -> bool {
    frame.undecodable && frame.local.is_empty() && frame.channel.starts_with("SRV.")
}

struct Replay {
    context: String,
    frames: Vec<Publish>,
    /// The buses by `role:ID`.
    buses: BTreeMap<String, NatsBus>,
    /// The subscribers with their subjects and local names.
    subscribers: Vec<(String, String, SubscriptionKind, Subscriber)>,
    foreign: async_nats::Client,
    messages: async_nats::Subscriber,
}

impl Replay {
    async fn new(server: &Server, version: &str, conversation: Conversation) -> Self {
        let context = format!("{}, Go {version}", conversation.id);
        let foreign = async_nats::connect(server.url()).await.unwrap();
        let mut messages = foreign.subscribe("*.>").await.unwrap();
        foreign.publish("observer.ready", "".into()).await.unwrap();
        // Buses of the previous conversation may still send to their inboxes.
        while poll_fn(|cx| Pin::new(&mut messages).poll_next(cx)).await.unwrap().subject.as_str()
            != "observer.ready"
        {}
        let frames: Vec<_> = conversation
            .frames
            .into_iter()
            .filter_map(|event| match event {
                Event::Publish(publish) => Some(*publish),
                Event::Lock(_) => None,
            })
            .collect();
        let mut buses = BTreeMap::new();
        for peer in &conversation.participants {
            let bus = NatsBus::connect(&server.url(), runtime()).await.unwrap();
            buses.insert(format!("{}:{}", peer.role, peer.id), bus);
        }
        let mut subscribers = Vec::new();
        for subscription in &conversation.subscriptions {
            let Some(bus) = buses.get(&subscription.by) else { continue };
            let subject = &subscription.channel;
            let kind = match &subscription.queue_group {
                Some(group) => {
                    assert_eq!(group, "bus");
                    SubscriptionKind::Queue
                }
                None => SubscriptionKind::Plain,
            };
            let carried = frames.iter().filter(|frame| frame.channel == *subject && !is_no_envelope(frame));
            for local in carried.map(|frame| &frame.local).collect::<BTreeSet<_>>() {
                // This bus has two subscribers. Go delivers each update to both of them; in this
                // crate they take turns.
                let twice =
                    conversation.id == "subscription-queue-one-bus" && kind == SubscriptionKind::Queue;
                for _ in 0..if twice { 2 } else { 1 } {
                    let subscriber = Subscriber::live(bus, &channel_of(subject, local), kind).await;
                    subscribers.push((subject.clone(), local.clone(), kind, subscriber));
                }
            }
        }
        Self { context, frames, buses, subscribers, foreign, messages }
    }

    /// Publishes the frames of each peer and checks that the server delivers the same bytes to the
    /// subscribers. Returns how many frames were published by our buses.
    async fn run(mut self) -> usize {
        let mut ours = 0;
        for recorded in std::mem::take(&mut self.frames) {
            let bytes = recorded.bytes();
            let frame = Frame::decode(&bytes.clone().into(), &FrameLimits::DEFAULT).ok();
            let is_decoded = frame.is_some();
            match (self.buses.get(&recorded.from), frame) {
                // Frames that this implementation encodes differently on purpose are covered by the
                // tests of psrpc-proto.
                (Some(bus), Some((frame, _))) if frame.encode(&recorded.local) == bytes => {
                    publish(bus, &channel_of(&recorded.channel, &recorded.local), frame).await.unwrap();
                    ours += 1;
                }
                _ => {
                    self.foreign.publish(recorded.channel.clone(), bytes.clone().into()).await.unwrap();
                    self.foreign.flush().await.unwrap();
                }
            }
            let message = loop {
                let message = poll_fn(|cx| Pin::new(&mut self.messages).poll_next(cx)).await.unwrap();
                if !message.subject.starts_with("_INBOX.") {
                    break message;
                }
            };
            assert_eq!(
                (message.subject.as_str(), &message.payload[..]),
                (&*recorded.channel, &bytes[..]),
                "{}",
                self.context
            );
            match is_decoded {
                true => self.check_delivered(&recorded).await,
                false => self.check_delivered_undecoded(&recorded).await,
            }
        }
        ours
    }

    /// Checks that one listener of the subject gets a message that does not decode.
    async fn check_delivered_undecoded(&mut self, recorded: &Publish) {
        let is_listening = |(subject, ..): &&mut (String, String, SubscriptionKind, Subscriber)| {
            *subject == recorded.channel
        };
        let mut subscribers: Vec<_> =
            self.subscribers.iter_mut().filter(is_listening).map(|(.., subscriber)| subscriber).collect();
        if !subscribers.is_empty() {
            poll_fn(|cx| if take(&mut subscribers, cx) > 0 { Poll::Ready(()) } else { Poll::Pending }).await;
            let again = take(&mut subscribers, &mut Context::from_waker(Waker::noop()));
            assert_eq!(again, 0, "{}: a second listener got the message", self.context);
        }
    }

    /// Checks that each plain subscriber of a channel gets the frame, and one of the queue
    /// subscribers.
    async fn check_delivered(&mut self, recorded: &Publish) {
        let mut queue = Vec::new();
        for (subject, local, kind, subscriber) in &mut self.subscribers {
            if (&*subject, &*local) == (&recorded.channel, &recorded.local) {
                match kind {
                    SubscriptionKind::Plain => assert!(matches!(subscriber.next().await, Delivery::Frame(_))),
                    SubscriptionKind::Queue => queue.push(subscriber),
                }
            }
        }
        if queue.is_empty() {
            return;
        }
        poll_fn(|cx| match take(&mut queue, cx) {
            0 => Poll::Pending,
            _ => Poll::Ready(()),
        })
        .await;
        let again = take(&mut queue, &mut Context::from_waker(Waker::noop()));
        assert_eq!(again, 0, "{}: a second queue member got the frame", self.context);
    }
}

/// Takes a frame from the first subscriber that has one. Returns the number of frames taken.
fn take(subscribers: &mut [&mut Subscriber], cx: &mut Context<'_>) -> usize {
    let got = |subscriber: &mut &mut Subscriber| {
        matches!(Pin::new(&mut subscriber.inbox).poll_next(cx), Poll::Ready(Some(Delivery::Frame(_))))
    };
    usize::from(subscribers.iter_mut().any(got))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_recorded_conversations_are_the_same_over_our_bus() {
    let server = Server::nats(&[]);
    let (mut replayed, mut ours) = (0, 0);
    for (version, conversation) in conversations() {
        ours += Replay::new(&server, version, conversation).await.run().await;
        replayed += 1;
    }
    assert_eq!(replayed, 366, "conversations of four versions of Go");
    assert_eq!(ours, 1213, "frames that our bus published");
}
