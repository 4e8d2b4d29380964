//! What a Redis server pushes: each frame reaches every plain subscriber, and of a queue the one
//! who has its lock.

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
use crate::listener::{Counts, Told};

/// The channel that is subscribed to.
const CHANNEL: &str = "Hats|Fit|REQ";

/// When it is: after most of the recorded requests have expired, and before those of inputs that
/// say so.
const NOW: i64 = 1_795_400_000_000_000_000;

/// Clocks that stand still.
struct Still;

impl Runtime for Still {
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

/// Two bytes say who subscribes and what the server answers; the rest is a frame.
pub fn run(input: &[u8]) {
    let mut input = Input(input);
    let (setup, odd) = (input.byte(), input.byte());
    let mut options = RedisOptions::new();
    // So little room that one frame fills it.
    if odd & 1 == 1 {
        options = options.queue_bytes(1);
    }
    let bus = Bus::new(Still, options);
    let subscribe = |kind, count: u8| -> Vec<Told> {
        let subscribe = |_| {
            let told = Told::default();
            let name = bus.subscribe(CHANNEL, kind, told.sink());
            (told, name)
        };
        (0..count).map(subscribe).map(|(told, _)| told).collect()
    };
    let plain = subscribe(SubscriptionKind::Plain, setup & 3);
    let queue = subscribe(SubscriptionKind::Queue, setup >> 2 & 3);
    if odd & 2 == 2 {
        let leaver = bus.subscribe(CHANNEL, SubscriptionKind::Queue, Told::default().sink());
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
    // Twice: the second finds no room where one fills it.
    let rounds = 2;
    for _ in 0..rounds {
        bus.receive(vec![CHANNEL.as_bytes().to_vec(), bytes.to_vec()]);
    }
    let key = STANDARD.encode(Sha256::digest(bytes));
    let mut locks = 0;
    bus.answer(|command| {
        assert!(
            command.windows(key.len()).any(|part| part == key.as_bytes()),
            "the lock is that of the frame"
        );
        locks += 1;
        answer
    });
    for told in &plain {
        let frames = if decodes { (rounds, 0) } else { (0, rounds) };
        let Counts { frames: whole, raw, gaps, misrouted } = told.count();
        assert_eq!((whole, raw), frames, "a plain subscriber gets every frame");
        assert_eq!((gaps, misrouted), (0, 0));
    }
    let (taken, gaps) = sum(&queue);
    if queue.is_empty() {
        assert_eq!((taken, gaps), (0, 0));
    } else if expired {
        assert_eq!((taken, gaps, locks), (rounds, 0, 0), "nobody needs the lock of what has expired");
    } else {
        let refused = rounds - locks;
        assert_eq!(refused, if odd & 1 == 1 { 1 } else { 0 });
        let expected = match answer {
            Answer::Done => (locks, refused),
            Answer::Taken => (0, refused),
            Answer::Lost => (0, rounds),
        };
        assert_eq!((taken, gaps), expected, "of a queue one gets it, if the lock is ours");
    }
}

/// How many frames, whole or raw, and gaps all of them were told of.
fn sum(listeners: &[Told]) -> (usize, usize) {
    let counts = listeners.iter().map(Told::count);
    counts.fold((0, 0), |(frames, gaps), counts| (frames + counts.frames + counts.raw, gaps + counts.gaps))
}
