//! The recorded unary conversations of Go peers, replayed at the engine's edge with our engine in one peer's place:
//! what it subscribes to and publishes must be what Go did, but for the deviations named here.

mod client_place;
mod server_place;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use psrpc_engine::proto::{Channel, Frame, FrameLimits, Metadata, MethodProperties};
use psrpc_engine::{Route, SubscriptionKind};
use psrpc_vectors::{Bus, Conversation, Event, Publish, RECORDINGS};

use crate::fixture::{AFFINITY, QUEUE, SINGLE};

/// Calls `replay` with every recorded unary conversation; gives how many there were.
fn each_unary(mut replay: impl FnMut(Bus, &str, &Conversation)) -> usize {
    let mut count = 0;
    for recording in RECORDINGS {
        for conversation in recording.conversations() {
            let unary = ["unary-", "malformed-", "request-", "topic-single-", "queue-member-"];
            if unary.iter().any(|prefix| conversation.id.starts_with(prefix)) {
                replay(recording.bus, recording.version, &conversation);
                count += 1;
            }
        }
    }
    count
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
    if !matches!(ours, Frame::Request(request) if request.metadata.len() > 1) {
        assert_eq!(ours.encode(local), recorded.bytes(), "{context}");
    }
}

fn sorted(frame: &Frame) -> Frame {
    let mut frame = frame.clone();
    if let Frame::Request(request) = &mut frame {
        let entries: BTreeMap<_, _> =
            request.metadata.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        request.metadata = entries.into_iter().collect::<Metadata>();
    }
    frame
}

fn properties(method: &str) -> MethodProperties {
    match method {
        "Fit" | "MakeHatV1" | "RackFit" => QUEUE,
        "Pick" => AFFINITY,
        "OwnerFit" => SINGLE,
        other => panic!("{other} is no unary method of vectors.proto"),
    }
}

/// The route of a recorded request or registration, from the name of its channel and, on NATS, the method.
fn route_of(bus: Bus, channel: &str, local: &str) -> Route {
    let (method, topic) = match bus {
        Bus::Redis => {
            let mut parts = channel.split('|').skip(1);
            let method = parts.next().expect("a method");
            let mut topic: Vec<_> = parts.collect();
            topic.pop();
            (method, topic)
        }
        Bus::Nats => {
            let method = local.strip_suffix(".REQ").expect("a request channel");
            let subject = channel.strip_suffix(".Q").unwrap_or(channel);
            (method, subject.split('.').skip(2).collect())
        }
    };
    let topic: Vec<_> = topic.into_iter().map(unsanitized).collect();
    Route::new("Hats", method, properties(method), &topic).expect("a recorded route")
}

/// What a sanitized part of a channel's name stands for.
fn unsanitized(part: &str) -> String {
    let mut text = String::new();
    let mut rest = part;
    while let Some(next) = rest.chars().next() {
        let digits = match rest.get(..2) {
            Some("u+") => 4,
            Some("U+") => 8,
            _ => {
                text.push(next);
                rest = &rest[next.len_utf8()..];
                continue;
            }
        };
        let code = u32::from_str_radix(&rest[2..2 + digits], 16).expect("hex digits");
        text.push(char::from_u32(code).expect("a code point"));
        rest = &rest[2 + digits..];
    }
    text
}
