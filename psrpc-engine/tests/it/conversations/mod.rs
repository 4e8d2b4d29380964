//! The recorded conversations of Go peers, replayed at the engine's edge with our engine in one peer's place: what it
//! subscribes to and publishes must be what Go did, and what its user saw, but for the deviations named here.

mod multi_caller;
mod server_place;
mod server_user;
mod stream_opener;
mod subscriber;
mod transcript;
mod unary_caller;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use psrpc_engine::proto::{
    Channel, ErrorCode, Frame, FrameLimits, Metadata, MethodProperties, StreamBody, Text,
};
use psrpc_engine::{Client, ClientConfig, Route, SubscriptionHandle, SubscriptionKind};
use psrpc_vectors::{Bus, Conversation, Event, Participant, Publish, RECORDINGS, Recording, unescaped};
use serde_json::Value;

use crate::fixture::{AFFINITY, Driven, MULTI, QUEUE, SINGLE};

/// What a conversation is about.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Unary,
    Multi,
    Stream,
    Updates,
}

impl Kind {
    fn of(conversation: &Conversation) -> Self {
        match conversation.id.split('-').next() {
            Some("unary" | "malformed" | "request" | "topic" | "queue") => Kind::Unary,
            Some("multi" | "topics") => Kind::Multi,
            Some("stream") => Kind::Stream,
            Some("subscription") => Kind::Updates,
            _ => panic!("{} is of no known kind", conversation.id),
        }
    }
}

/// A peer of a recorded conversation, whose place our engine takes.
struct Place<'a> {
    bus: Bus,
    version: &'a str,
    conversation: &'a Conversation,
    peer: &'a Participant,
}

impl Place<'_> {
    /// What a failed assertion is about.
    fn context(&self) -> String {
        let Participant { role, label, .. } = self.peer;
        format!("{} on {:?}, Go {}, {role} {label}", self.conversation.id, self.bus, self.version)
    }

    fn id(&self) -> &str {
        &self.conversation.id
    }

    /// How the recording names the peer.
    fn from(&self) -> String {
        format!("{}:{}", self.peer.role, self.peer.id)
    }

    /// What the peer had subscribed to, and whether in a queue group.
    fn subscriptions(&self) -> BTreeSet<(String, bool)> {
        let from = self.from();
        let recorded = self.conversation.subscriptions.iter().filter(|subscription| subscription.by == from);
        recorded.map(|recorded| (recorded.channel.clone(), recorded.queue_group.is_some())).collect()
    }

    /// Our client in the peer's place, in step with the recording's wall clock.
    fn client(&self, service: &str) -> Driven<Client> {
        // Gossip has no streams.
        let opens_streams = service == "Hats";
        let config =
            ClientConfig { id: self.peer.id.as_str().into(), opens_streams, ..ClientConfig::new(service) };
        let mut client = Driven::new(Client::new(config, [1; 32]).unwrap());
        client.epoch = epoch(self.conversation).unwrap_or(client.epoch);
        client.events();
        client
    }

    /// Where our client hears what a server published.
    fn hears(&self, client: &Driven<Client>, publish: &Publish) -> SubscriptionHandle {
        let mut subscriptions = client.subscriptions.iter();
        let found = subscriptions.find(|(_, known, _)| name(self.bus, known) == publish.channel);
        found.expect("a client listens where servers publish").0
    }

    fn check_subscriptions(&self, client: &Driven<Client>) {
        let ours = client.subscriptions.iter().map(|(_, channel, kind)| (channel, *kind));
        assert_eq!(subscribed(self.bus, ours), self.subscriptions(), "{}", self.context());
    }
}

/// Replays every recorded conversation of a kind once for each of its peers with `role`; gives how often.
fn each_place(kind: Kind, role: &str, mut replay: impl FnMut(Place<'_>)) -> usize {
    let mut count = 0;
    for recording in RECORDINGS {
        for conversation in &recording.conversations() {
            if Kind::of(conversation) != kind {
                continue;
            }
            for peer in conversation.participants.iter().filter(|peer| peer.role == role) {
                replay(Place { bus: recording.bus, version: recording.version, conversation, peer });
                count += 1;
            }
        }
    }
    count
}

/// Every conversation is replayed in the place of each Go peer that it has; these have none of the one role or the other.
#[test]
fn the_conversations_without_a_peer_of_a_role_are_these() {
    let without = |role: &str| -> BTreeSet<String> {
        let all = RECORDINGS.iter().flat_map(Recording::conversations);
        all.filter(|conversation| conversation.participants.iter().all(|peer| peer.role != role))
            .map(|conversation| conversation.id)
            .collect()
    };
    // The recorder, which is no peer, sent the request.
    let recorders = [
        "malformed-request-from-recorder",
        "malformed-request-truncated-from-recorder",
        "request-expired-from-recorder",
        "request-never-granted-from-recorder",
    ];
    assert_eq!(without("client"), recorders.map(str::to_owned).into());
    // What they are about is that there is no server.
    let nobody = [
        "multi-no-servers",
        "stream-no-servers",
        "topic-single-server-absent",
        "unary-no-servers",
        "unary-no-servers-short-timeout",
    ];
    assert_eq!(without("server"), nobody.map(str::to_owned).into());
    let all: usize = RECORDINGS.iter().map(|recording| recording.conversations().len()).sum();
    assert_eq!(all, 68 + 69 + 69 + 70);
}

/// The wall clock at the start of a conversation, from the first frame that tells the time.
fn epoch(conversation: &Conversation) -> Option<i64> {
    publishes(conversation).find_map(|(_, publish)| {
        let sent_at = match decode(publish) {
            // An expired request says nothing of the time at which it was sent.
            Frame::Request(_) if conversation.id == "request-expired-from-recorder" => {
                return Some(i64::MAX / 2);
            }
            Frame::Request(request) => request.sent_at,
            Frame::Stream(stream) => stream.sent_at,
            _ => return None,
        };
        Some(sent_at - micros(publish.at_us).as_nanos() as i64)
    })
}

fn publishes(conversation: &Conversation) -> impl Iterator<Item = (usize, &Publish)> {
    conversation.frames.iter().enumerate().filter_map(|(index, event)| match event {
        Event::Publish(publish) => Some((index, &**publish)),
        Event::Lock(_) => None,
    })
}

fn micros(at_us: u64) -> Duration {
    Duration::from_micros(at_us)
}

fn decode(publish: &Publish) -> Frame {
    Frame::decode(&publish.bytes().into(), &FrameLimits::DEFAULT).expect("a recorded frame").0
}

/// The name of a channel on a bus.
fn name(bus: Bus, channel: &Channel) -> String {
    match bus {
        Bus::Redis => channel.legacy().to_owned(),
        Bus::Nats => channel.server().to_owned(),
    }
}

/// The local channel that a frame on a bus names.
fn local(bus: Bus, channel: &Channel) -> &str {
    match bus {
        Bus::Redis => "",
        Bus::Nats => channel.local(),
    }
}

/// Channels with how they are subscribed to, where the bus can tell.
fn subscribed<'a>(
    bus: Bus,
    subscriptions: impl Iterator<Item = (&'a Channel, SubscriptionKind)>,
) -> BTreeSet<(String, bool)> {
    subscriptions
        .map(|(channel, kind)| (name(bus, channel), bus == Bus::Nats && kind == SubscriptionKind::Queue))
        .collect()
}

/// Bytes are compared where the order of metadata does not matter; else what they decode to.
fn assert_same(ours: &Frame, local: &str, recorded: &Publish, context: &str) {
    let expected = decode(recorded);
    assert_eq!(sorted(ours), sorted(&expected), "{context}");
    if metadata(&mut ours.clone()).is_none_or(|metadata| metadata.len() <= 1) {
        assert_eq!(ours.encode(local), recorded.bytes(), "{context}");
    }
}

fn sorted(frame: &Frame) -> Frame {
    let mut frame = frame.clone();
    if let Some(metadata) = metadata(&mut frame) {
        let entries: BTreeMap<_, _> =
            metadata.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        *metadata = entries.into_iter().collect();
    }
    frame
}

fn metadata(frame: &mut Frame) -> Option<&mut Metadata> {
    match frame {
        Frame::Request(request) => Some(&mut request.metadata),
        Frame::Stream(stream) => match &mut stream.body {
            Some(StreamBody::Open { metadata, .. }) => Some(metadata),
            _ => None,
        },
        _ => None,
    }
}

/// The fields of a recorded user's message, by its bytes.
fn fields(conversation: &Conversation, payload: &[u8]) -> Value {
    let found = publishes(conversation).find(|(_, publish)| match decode(publish) {
        Frame::Response(response) => response.result.is_ok_and(|known| known == payload),
        Frame::Stream(stream) => {
            matches!(stream.body, Some(StreamBody::Message { payload: known }) if known == payload)
        }
        Frame::Other(update) => update.value == payload,
        _ => false,
    });
    let publish = found.expect("a recorded message").1;
    match &publish.payload {
        Some(payload) => payload["fields"].clone(),
        // An update is the user's message itself.
        None => publish.fields.clone(),
    }
}

/// Compares the code and the text of an error with those recorded.
fn assert_error(code: &ErrorCode, error: &Text, recorded: &Value, context: &str) {
    // An error of Go that is none of psrpc's has no code in the recording, and is of this one on the wire.
    let recorded_code = recorded["code"].as_str().unwrap_or("unknown");
    assert_eq!((code.as_str(), error.as_str()), (recorded_code, text(&recorded["text"])), "{context}");
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn properties(method: &str) -> MethodProperties {
    match method {
        "Fit" | "MakeHatV1" | "RackFit" | "Parade" | "Rumour" => QUEUE,
        "Pick" => AFFINITY,
        "Census" | "ShelfCensus" | "RackCensus" | "Bulletin" => MULTI,
        "OwnerFit" | "OwnerParade" => SINGLE,
        other => panic!("{other} is no method of vectors.proto"),
    }
}

/// The route of a recorded request, stream or registration, from the name of its channel and, on NATS, the method.
fn route_of(bus: Bus, channel: &str, local: &str) -> Route {
    let (service, method, topic, kind) = match bus {
        Bus::Redis => {
            let parts: Vec<_> = channel.split('|').collect();
            let [service, method, topic @ .., kind] = &parts[..] else { panic!("{channel} is of no method") };
            (*service, *method, topic.to_vec(), *kind)
        }
        Bus::Nats => {
            let (method, kind) = local.split_once('.').expect("a local channel");
            let mut subject = channel.strip_suffix(".Q").unwrap_or(channel).split('.').skip(1);
            (subject.next().expect("a service"), method, subject.collect(), kind)
        }
    };
    let topic: Vec<_> = topic.into_iter().map(unescaped).collect();
    let route = match kind {
        "REQ" => Route::new(service, method, properties(method), &topic),
        "STR" => Route::stream(service, method, properties(method), &topic),
        other => panic!("nobody registers {other}"),
    };
    route.expect("a recorded route")
}
