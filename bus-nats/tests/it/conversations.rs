//! The recorded conversations once more, through a real server, with a bus of ours in each peer's
//! place.

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

use crate::support::{Ear, publish, runtime};

/// The recorded conversations, each with the version of Go that had it.
fn conversations() -> impl Iterator<Item = (&'static str, Conversation)> {
    RECORDINGS.iter().filter(|recording| recording.bus == Bus::Nats).flat_map(|recording| {
        recording.conversations().into_iter().map(|conversation| (recording.version, conversation))
    })
}

/// The channel that is carried on a subject under a local name.
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
        _ => panic!("{subject} carries no channel"),
    };
    assert_eq!((channel.server(), channel.local()), (subject, local));
    channel
}

/// Whether the recorder published bytes on a server's subject that name no channel there.
fn is_no_envelope(frame: &Publish) -> bool {
    frame.undecodable && frame.local.is_empty() && frame.channel.starts_with("SRV.")
}

struct Replay {
    context: String,
    frames: Vec<Publish>,
    /// By `role:ID`.
    buses: BTreeMap<String, NatsBus>,
    /// Each with the subject and the local name that it listens to.
    ears: Vec<(String, String, SubscriptionKind, Ear)>,
    foreign: async_nats::Client,
    messages: async_nats::Subscriber,
}

impl Replay {
    async fn new(server: &Server, version: &str, conversation: Conversation) -> Self {
        let context = format!("{}, Go {version}", conversation.id);
        let foreign = async_nats::connect(server.url()).await.unwrap();
        let mut messages = foreign.subscribe("*.>").await.unwrap();
        foreign.publish("observer.ready", "".into()).await.unwrap();
        // Buses of the conversation before may still talk to their inboxes.
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
        let mut ears = Vec::new();
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
                // Two listeners share a bus there: where Go hands each update to both, ours take
                // turns.
                let twice =
                    conversation.id == "subscription-queue-one-bus" && kind == SubscriptionKind::Queue;
                for _ in 0..if twice { 2 } else { 1 } {
                    let ear = Ear::live(bus, &channel_of(subject, local), kind).await;
                    ears.push((subject.clone(), local.clone(), kind, ear));
                }
            }
        }
        Self { context, frames, buses, ears, foreign, messages }
    }

    /// Publishes what each peer published, and checks that the server carries its very bytes to
    /// those who had subscribed; gives how many frames a bus of ours published.
    async fn run(mut self) -> usize {
        let mut ours = 0;
        for recorded in std::mem::take(&mut self.frames) {
            let bytes = recorded.bytes();
            let frame = Frame::decode(&bytes.clone().into(), &FrameLimits::DEFAULT).ok();
            let is_decoded = frame.is_some();
            match (self.buses.get(&recorded.from), frame) {
                // Where we write something else, and mean to, is for the tests of the wire to say.
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
                true => self.check_heard(&recorded).await,
                false => self.check_counted(&recorded).await,
            }
        }
        ours
    }

    /// Of those who listen to a subject one gets what does not decode, and counts it.
    async fn check_counted(&mut self, recorded: &Publish) {
        let listens =
            |(subject, ..): &&mut (String, String, SubscriptionKind, Ear)| *subject == recorded.channel;
        let mut ears: Vec<_> = self.ears.iter_mut().filter(listens).map(|(.., ear)| ear).collect();
        if !ears.is_empty() {
            poll_fn(|cx| if take(&mut ears, cx) > 0 { Poll::Ready(()) } else { Poll::Pending }).await;
            let again = take(&mut ears, &mut Context::from_waker(Waker::noop()));
            assert_eq!(again, 0, "{}: somebody else counts it too", self.context);
        }
    }

    /// Each plain subscriber of a channel gets a frame, and of the queue subscribers one.
    async fn check_heard(&mut self, recorded: &Publish) {
        let mut queue = Vec::new();
        for (subject, local, kind, ear) in &mut self.ears {
            if (&*subject, &*local) == (&recorded.channel, &recorded.local) {
                match kind {
                    SubscriptionKind::Plain => assert!(matches!(ear.next().await, Delivery::Frame(_))),
                    SubscriptionKind::Queue => queue.push(ear),
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
        assert_eq!(again, 0, "{}: somebody else got it too", self.context);
    }
}

/// Takes a frame from the first that has one; how many were taken.
fn take(ears: &mut [&mut Ear], cx: &mut Context<'_>) -> usize {
    let got = |ear: &mut &mut Ear| {
        matches!(Pin::new(&mut ear.inbox).poll_next(cx), Poll::Ready(Some(Delivery::Frame(_))))
    };
    usize::from(ears.iter_mut().any(got))
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
