//! Push messages of a Redis server: each frame reaches every plain subscriber, and the queue
//! subscriber that holds its lock.

use std::future::pending;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use psrpc::proto::{Frame, FrameLimits, Seed};
use psrpc::{Now, Runtime, SubscriptionKind, Task, Time, WallTime};
use psrpc_bus_redis::RedisOptions;
use psrpc_bus_redis::fuzzing::{Answer, Bus};
use sha2::{Digest, Sha256};

use crate::input::Input;
use crate::listener::{Counts, Recorder};

/// The subscribed channel.
const CHANNEL: &str = "Hats|Fit|REQ";

/// The current time: after the expiry of most recorded requests, and before the expiry that inputs
/// can set.
const NOW: i64 = 1_795_400_000_000_000_000;

/// A runtime whose clocks do not advance.
struct FrozenClock;

impl Runtime for FrozenClock {
    fn now(&self) -> Now {
        Now { time: Time::ZERO, wall: WallTime::from_unix_nanos(NOW) }
    }

    fn seed(&self) -> Seed {
        [0; 32]
    }

    fn sleep_until(&self, _: Time) -> Task {
        Box::pin(pending())
    }

    fn spawn(&self, _: Task) {}
}

/// Two bytes select the subscribers and the server's reply to the lock; the rest is a frame.
pub fn run(input: &[u8]) {
    let mut input = Input(input);
    let (setup, odd) = (input.byte(), input.byte());
    let mut options = RedisOptions::new();
    // With a capacity of one frame.
    if odd & 1 == 1 {
        options = options.queue_bytes(1);
    }
    let bus = Bus::new(FrozenClock, options);
    let subscribe = |kind, count: u8| -> Vec<Recorder> {
        let subscribe = |_| {
            let recorder = Recorder::default();
            let name = bus.subscribe(CHANNEL, kind, recorder.sink());
            (recorder, name)
        };
        (0..count).map(subscribe).map(|(recorder, _)| recorder).collect()
    };
    let plain = subscribe(SubscriptionKind::Plain, setup & 3);
    let queue = subscribe(SubscriptionKind::Queue, setup >> 2 & 3);
    if odd & 2 == 2 {
        let leaver = bus.subscribe(CHANNEL, SubscriptionKind::Queue, Recorder::default().sink());
        bus.unsubscribe(CHANNEL, leaver);
    }
    bus.answer(|_| Answer::Done);
    let answer = [Answer::Done, Answer::Taken, Answer::Lost][usize::from(setup >> 4) % 3];

    let bytes = input.0;
    if odd & 4 == 4 {
        // Not a message on this channel.
        bus.receive(vec![bytes.to_vec(), bytes.to_vec()]);
        bus.receive(vec![bytes.to_vec()]);
        bus.answer(|_| Answer::Done);
        assert!(bytes == CHANNEL.as_bytes() || sum(&plain) == (0, 0) && sum(&queue) == (0, 0));
        return;
    }
    let (decodes, expired) = match Frame::decode(&Bytes::copy_from_slice(bytes), &FrameLimits::DEFAULT) {
        Ok((Frame::Request(request), _)) => (true, request.expiry <= NOW),
        Ok(_) => (true, false),
        Err(_) => (false, false),
    };
    // Two rounds, since the second one exceeds a capacity of one frame.
    let rounds = 2;
    for _ in 0..rounds {
        bus.receive(vec![CHANNEL.as_bytes().to_vec(), bytes.to_vec()]);
    }
    let key = STANDARD.encode(Sha256::digest(bytes));
    let mut locks = 0;
    bus.answer(|command| {
        assert!(
            command.windows(key.len()).any(|part| part == key.as_bytes()),
            "the lock key belongs to the frame"
        );
        locks += 1;
        answer
    });
    for recorder in &plain {
        let frames = if decodes { (rounds, 0) } else { (0, rounds) };
        let Counts { frames: whole, raw, gaps, misrouted } = recorder.count();
        assert_eq!((whole, raw), frames, "a plain subscriber gets every frame");
        assert_eq!((gaps, misrouted), (0, 0));
    }
    let (taken, gaps) = sum(&queue);
    if queue.is_empty() {
        assert_eq!((taken, gaps), (0, 0));
    } else if expired {
        assert_eq!((taken, gaps, locks), (rounds, 0, 0), "expired requests are not locked");
    } else {
        let refused = rounds - locks;
        assert_eq!(refused, if odd & 1 == 1 { 1 } else { 0 });
        let expected = match answer {
            Answer::Done => (locks, refused),
            Answer::Taken => (0, refused),
            Answer::Lost => (0, rounds),
        };
        assert_eq!((taken, gaps), expected, "one queue subscriber gets the frame if the lock was taken");
    }
}

/// Returns the number of frames, decoded or raw, and of gaps at all listeners.
fn sum(listeners: &[Recorder]) -> (usize, usize) {
    let counts = listeners.iter().map(Recorder::count);
    counts.fold((0, 0), |(frames, gaps), counts| (frames + counts.frames + counts.raw, gaps + counts.gaps))
}
