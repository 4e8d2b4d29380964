//! Order of frames: large frames are encoded in tasks and delay only their own channel.

mod common;

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use futures_core::Stream;
use psrpc_bus_redis::{RedisBus, RedisOptions};
use psrpc_servers::Server;
use psrpc_tokio::bus::{Accepted, Bus, Offer, ReplyTo, WakeList};
use psrpc_tokio::proto::{Any, Channel, Compression, Frame, FrameLimits, Seed};
use psrpc_tokio::{BusError, Now, Runtime, Task, Time, TokioRuntime};
use redis::aio::PubSubStream;
use tokio::sync::oneshot;

use self::common::{channel, event, execute, frame, runtime, within};

/// A runtime that can collect spawned tasks instead of running them.
#[derive(Clone)]
struct CollectingRuntime {
    runtime: TokioRuntime,
    collected: Arc<Mutex<Option<Vec<Task>>>>,
}

impl CollectingRuntime {
    fn new() -> Self {
        Self { runtime: runtime(), collected: Arc::default() }
    }

    fn collect(&self) {
        *self.collected.lock().unwrap() = Some(Vec::new());
    }

    /// Returns the collected tasks. Later tasks are collected too.
    fn take(&self) -> Vec<Task> {
        self.collected.lock().unwrap().as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Waits until a task is collected.
    async fn collected(&self) {
        while self.collected.lock().unwrap().as_ref().is_none_or(Vec::is_empty) {
            tokio::task::yield_now().await;
        }
    }
}

impl Runtime for CollectingRuntime {
    fn now(&self) -> Now {
        self.runtime.now()
    }

    fn seed(&self) -> Seed {
        self.runtime.seed()
    }

    fn sleep_until(&self, deadline: Time) -> Task {
        self.runtime.sleep_until(deadline)
    }

    fn spawn(&self, task: Task) {
        match &mut *self.collected.lock().unwrap() {
            Some(collected) => collected.push(task),
            None => self.runtime.spawn(task),
        }
    }

    fn is_tokio(&self) -> bool {
        true
    }
}

struct Harness {
    server: Server,
    runtime: CollectingRuntime,
    bus: RedisBus,
    messages: PubSubStream,
}

impl Harness {
    async fn new(options: RedisOptions) -> Self {
        let server = Server::redis(&[]);
        let runtime = CollectingRuntime::new();
        let bus = RedisBus::connect_with(&server.url(), runtime.clone(), options).await.unwrap();
        let client = redis::Client::open(server.url()).unwrap();
        let (mut sink, messages) = client.get_async_pubsub().await.unwrap().split();
        sink.psubscribe("*|*").await.unwrap();
        Self { server, runtime, bus, messages }
    }

    /// Publishes a frame and returns a receiver for the result.
    fn publish(&self, channel: &Channel, frame: Frame) -> oneshot::Receiver<Result<Option<u64>, BusError>> {
        let (sender, receiver) = oneshot::channel();
        let offer = Offer::new(channel.clone(), frame, ReplyTo::new(move |result| _ = sender.send(result)));
        assert!(matches!(self.bus.publish(offer, &mut WakeList::new()), Ok(Accepted::Later)));
        receiver
    }

    /// Returns the channel of the next message and the first byte of its value.
    async fn message(&mut self) -> (String, u8) {
        let message = within(poll_fn(|cx| Pin::new(&mut self.messages).poll_next(cx))).await.unwrap();
        let bytes = message.get_payload_bytes().to_vec().into();
        let Ok((Frame::Other(any), _)) = Frame::decode(&bytes, &FrameLimits::DEFAULT) else {
            panic!("unexpected frame")
        };
        (message.get_channel_name().to_owned(), any.value[0])
    }
}

fn large(first: u8) -> Frame {
    Frame::Other(Any { type_url: "a/b".into(), value: vec![first; 100 * 1024].into() })
}

fn small(first: &'static str) -> Frame {
    frame(first)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_frame_delays_only_its_own_channel() {
    let mut harness = Harness::new(RedisOptions::new().compression(Compression::DEFAULT)).await;
    let [fit, pick] = ["Fit", "Pick"].map(channel);
    harness.runtime.collect();
    let frames = [large(b'1'), small("2"), small("3"), large(b'4'), small("5"), large(b'6')];
    let results: Vec<_> = frames.into_iter().map(|frame| harness.publish(&fit, frame)).collect();
    let overtaking = harness.publish(&pick, small("x"));
    assert_eq!(within(overtaking).await.unwrap().unwrap(), Some(1));
    assert_eq!(harness.message().await, (pick.legacy().to_owned(), b'x'));
    for expected in [&b"123"[..], b"45", b"6"] {
        within(harness.runtime.collected()).await;
        let tasks = harness.runtime.take();
        assert_eq!(tasks.len(), 1, "one frame of a channel is encoded at a time");
        for task in tasks {
            task.await;
        }
        for first in expected {
            assert_eq!(harness.message().await, (fit.legacy().to_owned(), *first));
        }
    }
    for result in results {
        assert_eq!(within(result).await.unwrap().unwrap(), Some(1));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_encoding_task_fails_its_frame_and_the_frames_behind_it() {
    let mut harness = Harness::new(RedisOptions::new()).await;
    let fit = channel("Fit");
    harness.runtime.collect();
    let results: Vec<_> = [large(b'1'), small("2"), large(b'3')]
        .map(|frame| harness.publish(&fit, frame))
        .into_iter()
        .collect();
    within(harness.runtime.collected()).await;
    drop(harness.runtime.take());
    for result in results {
        within(result).await.unwrap().unwrap_err();
    }
    let after = harness.publish(&fit, small("4"));
    assert_eq!(within(after).await.unwrap().unwrap(), Some(1));
    assert_eq!(harness.message().await.1, b'4');
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_being_encoded_count_against_the_budget_and_fail_with_the_connection() {
    let harness = Harness::new(RedisOptions::new().queue_bytes(150 * 1024)).await;
    let fit = channel("Fit");
    harness.runtime.collect();
    let results = [large(b'1'), large(b'2')].map(|frame| harness.publish(&fit, frame));
    let full = |bus: &RedisBus| {
        let offer = Offer::new(channel("Pick"), small("x"), ReplyTo::new(|_| {}));
        bus.publish(offer, &mut WakeList::new()).is_err()
    };
    within(harness.runtime.collected()).await;
    assert!(full(&harness.bus), "the budget is used up");
    let mut events = harness.bus.monitor().unwrap().watch();
    execute(&harness.server, "CLIENT KILL TYPE normal").await;
    for result in results {
        within(result).await.unwrap().unwrap_err();
    }
    event(&mut events).await;
    event(&mut events).await;
    assert!(
        !full(&harness.bus),
        "the second frame is released; the first is still in memory, but leaves room"
    );
    // A frame of the old connection is not sent.
    let later = harness.publish(&fit, small("3"));
    assert_eq!(within(later).await.unwrap().unwrap(), Some(1));
    for task in harness.runtime.take() {
        task.await;
    }
    let mut harness = harness;
    let last = harness.publish(&fit, small("4"));
    assert_eq!(within(last).await.unwrap().unwrap(), Some(1));
    for expected in [b'3', b'4'] {
        let mut message = harness.message().await;
        while message.0 != fit.legacy() {
            message = harness.message().await;
        }
        assert_eq!(message.1, expected);
    }
}

/// Closing a bus sends every accepted frame, including frames that are still being encoded.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_sends_the_frames_that_are_held_back() {
    let mut harness = Harness::new(RedisOptions::new().compression(Compression::DEFAULT)).await;
    let fit = channel("Fit");
    harness.runtime.collect();
    let results = [large(b'1'), small("2")].map(|frame| harness.publish(&fit, frame));
    within(harness.runtime.collected()).await;
    harness.bus = RedisBus::connect(&harness.server.url(), runtime()).await.unwrap();
    for task in harness.runtime.take() {
        task.await;
    }
    for result in results {
        assert_eq!(within(result).await.unwrap().unwrap(), Some(1));
    }
}
