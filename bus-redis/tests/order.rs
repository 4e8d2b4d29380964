//! Order: large frames are encoded on their own, and hold up nothing but their channel.

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

use self::common::{channel, event, frame, runtime, tell, within};

/// A runtime that keeps the tasks that are spawned once it is told to.
#[derive(Clone)]
struct KeepingRuntime {
    runtime: TokioRuntime,
    kept: Arc<Mutex<Option<Vec<Task>>>>,
}

impl KeepingRuntime {
    fn new() -> Self {
        Self { runtime: runtime(), kept: Arc::default() }
    }

    fn keep(&self) {
        *self.kept.lock().unwrap() = Some(Vec::new());
    }

    /// The tasks that were kept. Later ones are kept too.
    fn take(&self) -> Vec<Task> {
        self.kept.lock().unwrap().as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Waits until a task is kept.
    async fn kept(&self) {
        while self.kept.lock().unwrap().as_ref().is_none_or(Vec::is_empty) {
            tokio::task::yield_now().await;
        }
    }
}

impl Runtime for KeepingRuntime {
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
        match &mut *self.kept.lock().unwrap() {
            Some(kept) => kept.push(task),
            None => self.runtime.spawn(task),
        }
    }

    fn is_tokio(&self) -> bool {
        true
    }
}

struct Scene {
    server: Server,
    runtime: KeepingRuntime,
    bus: RedisBus,
    messages: PubSubStream,
}

impl Scene {
    async fn new(options: RedisOptions) -> Self {
        let server = Server::redis(&[]);
        let runtime = KeepingRuntime::new();
        let bus = RedisBus::connect_with(&server.url(), runtime.clone(), options).await.unwrap();
        let client = redis::Client::open(server.url()).unwrap();
        let (mut sink, messages) = client.get_async_pubsub().await.unwrap().split();
        sink.psubscribe("*|*").await.unwrap();
        Self { server, runtime, bus, messages }
    }

    /// Offers a frame, which the bus takes.
    fn publish(&self, channel: &Channel, frame: Frame) -> oneshot::Receiver<Result<Option<u64>, BusError>> {
        let (tell, told) = oneshot::channel();
        let offer = Offer::new(channel.clone(), frame, ReplyTo::new(move |result| _ = tell.send(result)));
        assert!(matches!(self.bus.publish(offer, &mut WakeList::new()), Ok(Accepted::Later)));
        told
    }

    /// The next message that reaches a subscriber: its channel, and the first byte of its value.
    async fn message(&mut self) -> (String, u8) {
        let message = within(poll_fn(|cx| Pin::new(&mut self.messages).poll_next(cx))).await.unwrap();
        let bytes = message.get_payload_bytes().to_vec().into();
        let Ok((Frame::Other(any), _)) = Frame::decode(&bytes, &FrameLimits::DEFAULT) else {
            panic!("another")
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
async fn a_large_frame_holds_up_its_channel_alone() {
    let mut scene = Scene::new(RedisOptions::new().compression(Compression::DEFAULT)).await;
    let [fit, pick] = ["Fit", "Pick"].map(channel);
    scene.runtime.keep();
    let frames = [large(b'1'), small("2"), small("3"), large(b'4'), small("5"), large(b'6')];
    let results: Vec<_> = frames.into_iter().map(|frame| scene.publish(&fit, frame)).collect();
    let overtaking = scene.publish(&pick, small("x"));
    assert_eq!(within(overtaking).await.unwrap().unwrap(), Some(1));
    assert_eq!(scene.message().await, (pick.legacy().to_owned(), b'x'));
    for expected in [&b"123"[..], b"45", b"6"] {
        within(scene.runtime.kept()).await;
        let tasks = scene.runtime.take();
        assert_eq!(tasks.len(), 1, "one frame of a channel is encoded at a time");
        for task in tasks {
            task.await;
        }
        for first in expected {
            assert_eq!(scene.message().await, (fit.legacy().to_owned(), *first));
        }
    }
    for result in results {
        assert_eq!(within(result).await.unwrap().unwrap(), Some(1));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_is_dropped_fails_its_frame_and_those_behind_it() {
    let mut scene = Scene::new(RedisOptions::new()).await;
    let fit = channel("Fit");
    scene.runtime.keep();
    let results: Vec<_> =
        [large(b'1'), small("2"), large(b'3')].map(|frame| scene.publish(&fit, frame)).into_iter().collect();
    within(scene.runtime.kept()).await;
    drop(scene.runtime.take());
    for result in results {
        within(result).await.unwrap().unwrap_err();
    }
    let after = scene.publish(&fit, small("4"));
    assert_eq!(within(after).await.unwrap().unwrap(), Some(1));
    assert_eq!(scene.message().await.1, b'4');
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_that_are_encoded_count_and_fail_with_their_connection() {
    let scene = Scene::new(RedisOptions::new().queue_bytes(150 * 1024)).await;
    let fit = channel("Fit");
    scene.runtime.keep();
    let results = [large(b'1'), large(b'2')].map(|frame| scene.publish(&fit, frame));
    let full = |bus: &RedisBus| {
        let offer = Offer::new(channel("Pick"), small("x"), ReplyTo::new(|_| {}));
        bus.publish(offer, &mut WakeList::new()).is_err()
    };
    within(scene.runtime.kept()).await;
    assert!(full(&scene.bus), "the budget is used up");
    let mut events = scene.bus.monitor().unwrap().watch();
    tell(&scene.server, "CLIENT KILL TYPE normal").await;
    for result in results {
        within(result).await.unwrap().unwrap_err();
    }
    event(&mut events).await;
    event(&mut events).await;
    assert!(
        !full(&scene.bus),
        "the second was given back, and the first, which is still in memory, leaves room"
    );
    // What comes too late is not sent.
    let later = scene.publish(&fit, small("3"));
    assert_eq!(within(later).await.unwrap().unwrap(), Some(1));
    for task in scene.runtime.take() {
        task.await;
    }
    let mut scene = scene;
    let last = scene.publish(&fit, small("4"));
    assert_eq!(within(last).await.unwrap().unwrap(), Some(1));
    for expected in [b'3', b'4'] {
        let mut message = scene.message().await;
        while message.0 != fit.legacy() {
            message = scene.message().await;
        }
        assert_eq!(message.1, expected);
    }
}

/// A bus that is closed sends what it accepted, also what is still to be encoded.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_sends_what_is_held_back() {
    let mut scene = Scene::new(RedisOptions::new().compression(Compression::DEFAULT)).await;
    let fit = channel("Fit");
    scene.runtime.keep();
    let results = [large(b'1'), small("2")].map(|frame| scene.publish(&fit, frame));
    within(scene.runtime.kept()).await;
    scene.bus = RedisBus::connect(&scene.server.url(), runtime()).await.unwrap();
    for task in scene.runtime.take() {
        task.await;
    }
    for result in results {
        assert_eq!(within(result).await.unwrap().unwrap(), Some(1));
    }
}
