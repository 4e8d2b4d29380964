//! Helpers of the tests.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

use futures_core::Stream;
use psrpc::bus::{
    Accepted, Bus, BusEvent, Delivery, Full, Inbox, Offer, ReplyTo, Subscription, WakeList, Watcher,
};
use psrpc::proto::{Channel, Frame, Request};
use psrpc::{BusError, SubscriptionKind};
use psrpc_bus_nats::NatsBus;
use tokio::sync::oneshot;

#[allow(unused_imports, reason = "tests/thread.rs does not use it")]
pub(crate) use crate::runtime;

pub const SECOND: Duration = Duration::from_secs(1);

pub fn plain(method: &str) -> Channel {
    Channel::request::<&str>("Hats", method, &[], false)
}

pub fn queue(method: &str) -> Channel {
    Channel::request::<&str>("Hats", method, &[], true)
}

pub fn topic(topic: &str) -> Channel {
    Channel::request("Hats", "Make", &[topic], false)
}

pub fn frame(number: u32) -> Frame {
    sized(number, 0)
}

/// Returns a frame with a payload of `bytes` bytes.
pub fn sized(number: u32, bytes: usize) -> Frame {
    let request_id = format!("REQ_{number}").as_str().into();
    Frame::Request(Request { request_id, payload: vec![7; bytes].into(), ..Request::default() })
}

/// Returns the number of a frame created by [`frame`].
pub fn number(frame: &Frame) -> u32 {
    let Frame::Request(request) = frame else { panic!("{frame:?}") };
    request.request_id.as_str()["REQ_".len()..].parse().unwrap()
}

/// A subscriber.
pub struct Subscriber {
    pub inbox: Inbox,
    pub subscription: Option<Subscription>,
}

impl Subscriber {
    /// Subscribes and waits until the subscription is live.
    pub async fn live(bus: &NatsBus, channel: &Channel, kind: SubscriptionKind) -> Self {
        let mut subscriber = Self::new(bus, channel, kind, 100_000);
        match subscriber.next().await {
            Delivery::Live => subscriber,
            other => panic!("{other:?} for {channel}"),
        }
    }

    pub fn new(bus: &NatsBus, channel: &Channel, kind: SubscriptionKind, capacity: usize) -> Self {
        let (sink, inbox) = Inbox::new(capacity);
        let subscription = Some(bus.subscribe(channel, kind, sink, &mut WakeList::new()));
        Self { inbox, subscription }
    }

    /// Returns the next delivery, which must arrive within ten seconds.
    pub async fn next(&mut self) -> Delivery {
        let next = poll_fn(|cx| Pin::new(&mut self.inbox).poll_next(cx));
        within(10 * SECOND, "a delivery arrives", next).await.expect("the subscription must not end")
    }

    /// Returns the number of the next frame.
    pub async fn number(&mut self) -> u32 {
        match self.next().await {
            Delivery::Frame(frame) => number(&frame),
            other => panic!("{other:?}"),
        }
    }

    /// Unsubscribes and returns the numbers of the frames that still arrive.
    pub async fn rest(&mut self) -> Vec<u32> {
        self.subscription = None;
        let mut numbers = Vec::new();
        loop {
            match self.next().await {
                Delivery::Frame(frame) => numbers.push(number(&frame)),
                Delivery::Ended(None) => return numbers,
                other => panic!("{other:?}"),
            }
        }
    }

    /// Returns the deliveries that have arrived.
    pub fn waiting(&mut self) -> Vec<Delivery> {
        let mut cx = Context::from_waker(Waker::noop());
        let mut waiting = Vec::new();
        while let Poll::Ready(Some(delivery)) = Pin::new(&mut self.inbox).poll_next(&mut cx) {
            waiting.push(delivery);
        }
        waiting
    }
}

/// Publishes a frame, waiting for room. Returns a receiver for the result.
pub async fn offer(
    bus: &NatsBus,
    channel: &Channel,
    frame: Frame,
) -> oneshot::Receiver<Result<Option<u64>, BusError>> {
    loop {
        let (sender, receiver) = oneshot::channel();
        let sender = Arc::new(Mutex::new(Some(sender)));
        let later = Arc::clone(&sender);
        let send = |sender: &Mutex<Option<oneshot::Sender<_>>>, result| {
            drop(sender.lock().unwrap().take().map(|sender| sender.send(result)));
        };
        let reply_to = ReplyTo::new(move |result| send(&later, result));
        match bus.publish(Offer::new(channel.clone(), frame.clone(), reply_to), &mut WakeList::new()) {
            Ok(Accepted::Later) => return receiver,
            Ok(Accepted::Failed(error)) => {
                send(&sender, Err(error));
                return receiver;
            }
            Ok(Accepted::Done(count)) => {
                send(&sender, Ok(count));
                return receiver;
            }
            Err(Full) => poll_fn(|cx| bus.poll_ready(cx)).await,
        }
    }
}

pub async fn publish(bus: &NatsBus, channel: &Channel, frame: Frame) -> Result<Option<u64>, BusError> {
    psrpc::bus::publish(bus, channel.clone(), frame).await
}

/// Returns the next delivery to any of the subscribers, and the index of that subscriber.
#[allow(dead_code, reason = "tests/thread.rs does not use it")]
pub async fn next_of(subscribers: impl IntoIterator<Item = &mut Subscriber>) -> (usize, Delivery) {
    let mut subscribers: Vec<_> = subscribers.into_iter().collect();
    poll_fn(|cx| {
        for (index, subscriber) in subscribers.iter_mut().enumerate() {
            if let Poll::Ready(delivery) = Pin::new(&mut subscriber.inbox).poll_next(cx) {
                return Poll::Ready((index, delivery.expect("the subscription must not end")));
            }
        }
        Poll::Pending
    })
    .await
}

/// Watches the events of a bus.
pub fn watch(bus: &NatsBus) -> Watcher {
    bus.monitor().unwrap().watch()
}

/// Returns the next event of a bus, which must happen within 20 seconds.
pub async fn event(events: &mut Watcher) -> BusEvent {
    let next = poll_fn(|cx| Pin::new(&mut *events).poll_next(cx));
    within(20 * SECOND, "an event happens", next).await.expect("events do not end")
}

/// Waits until the bus has lost its connection. Returns how long that took.
pub async fn lost(limit: Duration, events: &mut Watcher) -> Duration {
    let start = Instant::now();
    within(limit, "the connection is lost", async {
        while !matches!(event(events).await, BusEvent::ConnectionLost { .. }) {}
    })
    .await;
    start.elapsed()
}

/// Returns the output of a future, which must complete within `limit`.
pub async fn within<T>(limit: Duration, condition: &str, future: impl Future<Output = T>) -> T {
    let result = tokio::time::timeout(limit, future).await;
    result.unwrap_or_else(|_| panic!("timed out after {limit:?} waiting until {condition}"))
}

/// Waits until a condition holds, checking every 5 ms. Use it if only a publish can show whether
/// the condition holds: NATS does not tell a publisher when a subscription or a configuration takes
/// effect.
pub async fn until(limit: Duration, condition: &str, mut holds: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !holds().await {
        assert!(start.elapsed() < limit, "timed out after {limit:?} waiting until {condition}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Runs a future without tokio.
#[allow(dead_code, reason = "tests on tokio have an executor")]
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Arc::new(Unpark(std::thread::current())).into();
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(result) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return result;
        }
        std::thread::park();
    }
}
