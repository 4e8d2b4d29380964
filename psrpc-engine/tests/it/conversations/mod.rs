//! Replays the recorded conversations of Go peers, with our engine in the place of one peer. The
//! engine must subscribe, publish and report to its user as the Go peer did, except for the
//! deviations named here.

mod multi_caller;
mod server;
mod server_user;
mod stream_opener;
mod subscriber;
mod transcript;
mod unary_caller;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use psrpc_engine::proto::{
    Channel, Compression, ErrorCode, Frame, FrameLimits, Metadata, MethodProperties, StreamBody, Text,
};
use psrpc_engine::{Client, ClientConfig, Route, Selection, SubscriptionHandle, SubscriptionKind};
use psrpc_vectors::{Bus, Conversation, Event, Participant, Publish, RECORDINGS, Recording, unescaped};
use serde_json::Value;

use crate::fixture::{AFFINITY, Driven, MULTI, QUEUE, SINGLE, ms};

/// The kind of method that a conversation uses.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Unary,
    Multi,
    Stream,
    Updates,
}

impl Kind {
    fn of(conversation: &Conversation) -> Self {
        match conversation.id.as_str() {
            "skip-claim-on-multi" | "handler-deadline-multi" | "compression-multi" => return Kind::Multi,
            "skip-claim-on-stream" => return Kind::Stream,
            "compression-threshold-boundary" => return Kind::Updates,
            _ => {}
        }
        match conversation.id.split('-').next() {
            Some("unary" | "malformed" | "request" | "topic" | "queue" | "retry" | "handler" | "server") => {
                Kind::Unary
            }
            Some("skip" | "legacy" | "selection" | "compression") => Kind::Unary,
            Some("multi" | "topics") => Kind::Multi,
            Some("stream") => Kind::Stream,
            Some("subscription") => Kind::Updates,
            _ => panic!("{}: unknown kind of conversation", conversation.id),
        }
    }
}

/// A peer of a recorded conversation that our engine replaces.
struct RecordedPeer<'a> {
    bus: Bus,
    version: &'a str,
    conversation: &'a Conversation,
    participant: &'a Participant,
}

impl RecordedPeer<'_> {
    /// Returns a description for failed assertions.
    fn context(&self) -> String {
        let Participant { role, label, .. } = self.participant;
        format!("{} on {:?}, Go {}, {role} {label}", self.conversation.id, self.bus, self.version)
    }

    fn id(&self) -> &str {
        &self.conversation.id
    }

    /// Returns the peer's name in the recording.
    fn from(&self) -> String {
        format!("{}:{}", self.participant.role, self.participant.id)
    }

    /// Returns `true` if no other server took part.
    fn is_only_server(&self) -> bool {
        self.conversation.participants.iter().filter(|peer| peer.role == "server").count() == 1
    }

    /// Returns the channels of the peer's subscriptions, each with `true` if it was in a queue
    /// group.
    fn subscriptions(&self) -> BTreeSet<(String, bool)> {
        let from = self.from();
        let recorded = self.conversation.subscriptions.iter().filter(|subscription| subscription.by == from);
        recorded.map(|recorded| (recorded.channel.clone(), recorded.queue_group.is_some())).collect()
    }

    /// Returns our client for this peer, with the wall clock of the recording.
    fn client(&self, service: &str) -> Driven<Client> {
        // Gossip has no streams.
        let opens_streams = service == "Hats";
        let mut config = ClientConfig {
            id: self.participant.id.as_str().into(),
            opens_streams,
            ..ClientConfig::new(service)
        };
        match self.id() {
            "selection-options-on-queue-client-select-timeout" => config.affinity_timeout = ms(300),
            "compression-response-over-cap" => config.limits.frame.frame_bytes = 2000,
            _ => {}
        }
        let mut client = Driven::new(Client::new(config, [1; 32]).unwrap());
        client.epoch = epoch(self.conversation).unwrap_or(client.epoch);
        client.events();
        client
    }

    /// Returns the subscription on which our client receives another peer's frame, if any.
    fn subscription_for(&self, client: &Driven<Client>, publish: &Publish) -> Option<SubscriptionHandle> {
        let mut subscriptions = client.subscriptions.iter();
        let found = subscriptions.find(|(_, known, _)| name(self.bus, known) == publish.channel);
        found.map(|(subscription, ..)| *subscription)
    }

    /// Returns `true` if envelopes name local channels. On Redis, Go writes them since v0.8.0.
    fn has_local_names(&self) -> bool {
        self.bus == Bus::Nats || self.version >= "v0.8.0"
    }

    /// Returns the local channel name in the envelopes of this recording.
    fn local<'a>(&self, channel: &'a Channel) -> &'a str {
        if self.has_local_names() { channel.local() } else { "" }
    }

    /// Checks the error of a command on a closed client.
    fn check_refused(&self, code: &ErrorCode, text: &str) {
        let recorded = &self.conversation.outcome["error"];
        assert_error(code, &text.into(), recorded, &self.context());
    }

    fn check_subscriptions(&self, client: &Driven<Client>) {
        let ours = client.subscriptions.iter().map(|(_, channel, kind)| (channel, *kind));
        assert_eq!(subscribed(self.bus, ours), self.subscriptions(), "{}", self.context());
    }
}

/// Replays every recorded conversation of a kind once for each of its peers with `role`, and
/// returns the number of replays.
fn for_each_peer(kind: Kind, role: &str, mut replay: impl FnMut(RecordedPeer<'_>)) -> usize {
    let mut count = 0;
    for recording in RECORDINGS {
        for conversation in &recording.conversations() {
            if Kind::of(conversation) != kind {
                continue;
            }
            for peer in conversation.participants.iter().filter(|peer| peer.role == role) {
                replay(RecordedPeer {
                    bus: recording.bus,
                    version: recording.version,
                    conversation,
                    participant: peer,
                });
                count += 1;
            }
        }
    }
    count
}

/// Lists the conversations without a Go client or without a Go server. All others are replayed for
/// both roles.
#[test]
fn the_listed_conversations_lack_a_client_or_a_server() {
    let without = |role: &str| -> BTreeSet<String> {
        let all = RECORDINGS.iter().flat_map(Recording::conversations);
        all.filter(|conversation| conversation.participants.iter().all(|peer| peer.role != role))
            .map(|conversation| conversation.id)
            .collect()
    };
    // The recorder sent the request, and is no peer.
    let without_client = [
        "compression-bad-checksum",
        "compression-damaged",
        "compression-field-but-plain",
        "compression-from-recorder",
        "compression-none-explicit",
        "compression-trailing-garbage",
        "compression-unknown-value",
        "compression-unknown-value-gzipped",
        "legacy-request-field-9",
        "malformed-request-from-recorder",
        "malformed-request-truncated-from-recorder",
        "request-duplicated-by-recorder",
        "request-expired-from-recorder",
        "request-expired-observed",
        "request-field-9-server-without-option",
        "request-fields-9-and-10-from-recorder",
        "request-never-granted-from-recorder",
    ];
    assert_eq!(without("client"), without_client.map(str::to_owned).into());
    // There is no server, or the recorder plays it.
    let without_server = [
        "compression-response-unknown-value",
        "multi-duplicate-response",
        "multi-no-servers",
        "retry-unary-context-deadline",
        "retry-unary-no-timeout",
        "retry-unary-request-timeout",
        "selection-options-on-queue-client-select-timeout",
        "skip-claim-announcement-after-selection-timeout",
        "skip-claim-announcement-on-affinity",
        "skip-claim-announcement-without-affinity",
        "skip-claim-announcement-without-response",
        "skip-claim-bid-after-announcement",
        "skip-claim-error-before-announcement",
        "skip-claim-error-without-announcement",
        "skip-claim-late-announcement-after-grant",
        "skip-claim-response-before-announcement",
        "skip-claim-two-announcements",
        "stream-client-closed-while-opening",
        "stream-no-servers",
        "subscription-on-closed-client",
        "subscription-update-of-another-type",
        "subscription-update-of-unknown-type",
        "topic-single-server-absent",
        "unary-affinity-response-during-selection",
        "unary-client-closed-during-selection",
        "unary-error-during-selection-then-bid",
        "unary-no-servers",
        "unary-no-servers-short-timeout",
        "unary-response-code-without-text",
        "unary-response-of-another-server",
        "unary-response-text-without-code",
        "unary-two-errors-during-selection",
    ];
    assert_eq!(without("server"), without_server.map(str::to_owned).into());
    let count = |recording: &Recording| recording.conversations().len();
    let all: Vec<_> = RECORDINGS.iter().map(count).collect();
    assert_eq!(all, [68, 69, 69, 70, 46, 46, 180, 181]);
}

/// Returns the wall clock at the start of a conversation, from the first frame with a send time.
fn epoch(conversation: &Conversation) -> Option<i64> {
    publishes(conversation).find_map(|(_, publish)| {
        let sent_at = match decode(publish) {
            // The send time of an expired request is made up.
            Frame::Request(_) if conversation.id.starts_with("request-expired") => {
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

/// Decodes a recorded frame; one that does not decode becomes [`Frame::Raw`].
fn decode(publish: &Publish) -> Frame {
    let bytes = publish.bytes().into();
    Frame::decode(&bytes, &FrameLimits::DEFAULT).map_or(Frame::Raw(bytes), |(frame, _)| frame)
}

/// Returns the name of a channel on a bus.
fn name(bus: Bus, channel: &Channel) -> String {
    match bus {
        Bus::Redis => channel.legacy().to_owned(),
        Bus::Nats => channel.server().to_owned(),
    }
}

/// Returns channel names, each with `true` for a queue subscription on a bus that distinguishes
/// them.
fn subscribed<'a>(
    bus: Bus,
    subscriptions: impl Iterator<Item = (&'a Channel, SubscriptionKind)>,
) -> BTreeSet<(String, bool)> {
    subscriptions
        .map(|(channel, kind)| (name(bus, channel), bus == Bus::Nats && kind == SubscriptionKind::Queue))
        .collect()
}

/// Compares a frame with the recorded one, byte for byte unless it is compressed or has several
/// metadata entries, whose encodings vary.
fn assert_same(ours: &Frame, local: &str, recorded: &Publish, context: &str) {
    let expected = decode(recorded);
    assert_eq!(sorted(ours), sorted(&expected), "{context}");
    if recorded.compression == 1 {
        let bytes = ours.encode_with(local, Some(Compression::DEFAULT));
        let again = Publish { hex: hex(&bytes), ..recorded.clone() };
        assert!(bytes.len() < ours.encode(local).len() && decode(&again) == expected, "{context}");
    } else if metadata(&mut ours.clone()).is_none_or(|metadata| metadata.len() <= 1) {
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

/// Returns the recorded fields of a user's message, found by its bytes.
fn fields(conversation: &Conversation, payload: &[u8]) -> Value {
    let mut readable = publishes(conversation).filter(|(_, publish)| !publish.undecodable);
    let found = readable.find(|(_, publish)| match decode(publish) {
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
        // The payload of an update is the user's message itself.
        None => publish.fields.clone(),
    }
}

/// Compares the code and the text of an error with those recorded.
fn assert_error(code: &ErrorCode, error: &Text, recorded: &Value, context: &str) {
    // A Go error without a psrpc code has none in the recording, and is `unknown` on the wire.
    let recorded_code = recorded["code"].as_str().unwrap_or("unknown");
    assert_eq!((code.as_str(), error.as_str()), (recorded_code, text(&recorded["text"])), "{context}");
}

/// Returns a selection with these options only: in Go the options of a call replace all defaults.
fn selection(set: impl FnOnce(&mut Selection)) -> Selection {
    let mut selection = Selection::none();
    set(&mut selection);
    selection
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
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
        other => panic!("{other}: no method of vectors.proto"),
    }
}

/// Returns the route of a recorded request, stream or registration, from its channel name and, on
/// NATS, its local channel.
fn route_of(bus: Bus, channel: &str, local: &str) -> Route {
    let (service, method, topic, kind) = match bus {
        Bus::Redis => {
            let parts: Vec<_> = channel.split('|').collect();
            let [service, method, topic @ .., kind] = &parts[..] else {
                panic!("{channel}: no channel of a method")
            };
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
        other => panic!("{other} is no channel of a registration"),
    };
    route.expect("a recorded route")
}
