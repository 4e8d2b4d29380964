//! Messages of a NATS server: each message reaches its recipients and no other subscriber.

use bytes::Bytes;
use psrpc::SubscriptionKind;
use psrpc::proto::{Channel, Frame, FrameLimits};
use psrpc_bus_nats::fuzzing::Subjects;

use crate::input::Input;
use crate::listener::{Counts, Recorder};

/// Methods whose requests share a subject. One has an empty name.
const METHODS: [&str; 5] = ["Fit", "Pick", "intCount", "", "IntensiveRPC"];

/// Low limits, which short inputs can exceed.
const LIMITS: FrameLimits = FrameLimits {
    frame_bytes: 4096,
    id_bytes: 32,
    metadata_entries: 3,
    metadata_bytes: 64,
    error_details: 2,
};

/// Two bytes select the kind of the subscriptions, the subscribers, and one to remove; the rest is
/// the payload of a message.
pub fn run(input: &[u8]) {
    let mut input = Input(input);
    let (setup, removal) = (input.byte(), input.byte());
    let kind = if setup.is_multiple_of(2) { SubscriptionKind::Plain } else { SubscriptionKind::Queue };
    let subjects = Subjects::new(LIMITS);
    let mut listeners: Vec<(String, Recorder)> = Vec::new();
    let mut keys = Vec::new();
    for bit in 1..8 {
        if setup >> bit & 1 == 1 {
            let method = METHODS[bit % METHODS.len()];
            let (channel, recorder) =
                (Channel::request::<&str>("Hats", method, &[], true), Recorder::default());
            keys.push(subjects.add(&channel, kind, recorder.sink()).expect("the channel is a valid subject"));
            listeners.push((channel.local().to_owned(), recorder));
        }
    }
    if removal % 4 == 1 && !keys.is_empty() {
        let at = usize::from(removal) % keys.len();
        subjects.remove(keys.swap_remove(at));
        listeners.swap_remove(at);
    }
    let payload = Bytes::copy_from_slice(input.0);
    let odd = Channel::response("Hats", &String::from_utf8_lossy(input.0));
    drop(subjects.add(&odd, SubscriptionKind::Plain, Recorder::default().sink()));
    let expected = Frame::decode(&payload, &LIMITS);
    // Two rounds, since queue subscribers take turns.
    for _ in 0..2 {
        subjects.receive(1, payload.clone());
        let counts: Vec<(&str, Counts)> =
            listeners.iter().map(|(channel, counts)| (channel.as_str(), counts.count())).collect();
        let all = |count: fn(&Counts) -> usize| counts.iter().map(|(_, counts)| count(counts)).sum::<usize>();
        let (frames, raw, misrouted) =
            (all(|counts| counts.frames), all(|counts| counts.raw), all(|counts| counts.misrouted));
        let anybody = usize::from(!listeners.is_empty());
        match &expected {
            Ok((_, channel)) => {
                let matching = counts.iter().filter(|(known, _)| channel.as_str() == *known);
                let rightly: usize = matching.clone().map(|(_, counts)| counts.frames).sum();
                assert_eq!(rightly, frames, "the frame reaches only the subscribers of its channel");
                let (matching, queue) = (matching.count(), kind == SubscriptionKind::Queue);
                assert_eq!(frames, if queue { matching.min(1) } else { matching });
                assert_eq!(misrouted, if queue && matching == 0 { anybody } else { 0 });
                assert_eq!(raw, 0);
            }
            Err(_) => assert_eq!(
                (frames, raw, misrouted),
                (0, anybody, 0),
                "one subscriber of the subject counts it"
            ),
        }
        assert_eq!(all(|counts| counts.gaps), 0);
    }
}
