//! What a NATS server hands out: each message reaches whom it is for, and nobody else.

use bytes::Bytes;
use psrpc::SubscriptionKind;
use psrpc::proto::{Channel, Frame, FrameLimits};
use psrpc_bus_nats::fuzzing::Subjects;

use crate::input::Input;
use crate::listener::{Counts, Told};

/// Methods whose requests share a subject, and one that nobody listens to.
const METHODS: [&str; 5] = ["Fit", "Pick", "intCount", "", "IntensiveRPC"];

/// So tight that short inputs go beyond them.
const LIMITS: FrameLimits = FrameLimits {
    frame_bytes: 4096,
    id_bytes: 32,
    metadata_entries: 3,
    metadata_bytes: 64,
    error_details: 2,
};

/// A byte says how the subject is subscribed to and who listens; the rest is the payload of a
/// message.
pub fn run(input: &[u8]) {
    let mut input = Input(input);
    let (setup, leaves) = (input.byte(), input.byte());
    let kind = if setup.is_multiple_of(2) { SubscriptionKind::Plain } else { SubscriptionKind::Queue };
    let subjects = Subjects::new(LIMITS);
    let mut listeners: Vec<(String, Told)> = Vec::new();
    let mut keys = Vec::new();
    for bit in 1..8 {
        if setup >> bit & 1 == 1 {
            let method = METHODS[bit % METHODS.len()];
            let (channel, told) = (Channel::request::<&str>("Hats", method, &[], true), Told::default());
            keys.push(subjects.add(&channel, kind, told.sink()).expect("it can be a subject"));
            listeners.push((channel.local().to_owned(), told));
        }
    }
    if leaves % 4 == 1 && !keys.is_empty() {
        let at = usize::from(leaves) % keys.len();
        subjects.remove(keys.swap_remove(at));
        listeners.swap_remove(at);
    }
    let payload = Bytes::copy_from_slice(input.0);
    let odd = Channel::response("Hats", &String::from_utf8_lossy(input.0));
    drop(subjects.add(&odd, SubscriptionKind::Plain, Told::default().sink()));
    let expected = Frame::decode(&payload, &LIMITS);
    // Twice: of a queue, they take turns.
    for _ in 0..2 {
        subjects.receive(1, payload.clone());
        let told: Vec<(&str, Counts)> =
            listeners.iter().map(|(channel, told)| (channel.as_str(), told.count())).collect();
        let all = |count: fn(&Counts) -> usize| told.iter().map(|(_, counts)| count(counts)).sum::<usize>();
        let (frames, raw, misrouted) =
            (all(|counts| counts.frames), all(|counts| counts.raw), all(|counts| counts.misrouted));
        let anybody = usize::from(!listeners.is_empty());
        match &expected {
            Ok((_, channel)) => {
                let there = told.iter().filter(|(known, _)| channel.as_str() == *known);
                let rightly: usize = there.clone().map(|(_, counts)| counts.frames).sum();
                assert_eq!(rightly, frames, "it reaches those of its channel alone");
                let (there, queue) = (there.count(), kind == SubscriptionKind::Queue);
                assert_eq!(frames, if queue { there.min(1) } else { there });
                assert_eq!(misrouted, if queue && there == 0 { anybody } else { 0 });
                assert_eq!(raw, 0);
            }
            Err(_) => assert_eq!((frames, raw, misrouted), (0, anybody, 0), "one of the subject counts it"),
        }
        assert_eq!(all(|counts| counts.gaps), 0);
    }
}
