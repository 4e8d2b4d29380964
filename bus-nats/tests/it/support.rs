//! What the tests do with a bus.

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

#[allow(unused_imports, reason = "the test of the thread has a runtime of its own")]
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

/// A frame with a payload of so many bytes.
pub fn sized(number: u32, bytes: usize) -> Frame {
    let request_id = format!("REQ_{number}").as_str().into();
    Frame::Request(Request { request_id, payload: vec![7; bytes].into(), ..Request::default() })
}

/// The number of a frame that [`frame`] made.
pub fn number(frame: &Frame) -> u32 {
    let Frame::Request(request) = frame else { panic!("{frame:?}") };
    request.request_id.as_str()["REQ_".len()..].parse().unwrap()
}

/// A subscriber.
pub struct Ear {
    pub inbox: Inbox,
    pub subscription: Option<Subscription>,
}

impl Ear {
    /// Listens; live when it is returned.
    pub async fn live(bus: &NatsBus, channel: &Channel, kind: SubscriptionKind) -> Self {
        let mut ear = Self::new(bus, channel, kind, 100_000);
        match ear.next().await {
            Delivery::Live => ear,
            other => panic!("{other:?} for {channel}"),
        }
    }

    pub fn new(bus: &NatsBus, channel: &Channel, kind: SubscriptionKind, capacity: usize) -> Self {
        let (sink, inbox) = Inbox::new(capacity);
        let subscription = Some(bus.subscribe(channel, kind, sink, &mut WakeList::new()));
        Self { inbox, subscription }
    }

    /// What comes next, within ten seconds.
    pub async fn next(&mut self) -> Delivery {
        let next = poll_fn(|cx| Pin::new(&mut self.inbox).poll_next(cx));
        within(10 * SECOND, "something comes", next).await.expect("it has not ended")
    }

    /// The number of the next frame.
    pub async fn number(&mut self) -> u32 {
        match self.next().await {
            Delivery::Frame(frame) => number(&frame),
            other => panic!("{other:?}"),
        }
    }

    /// All that comes until the end.
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

    /// What has come and was not looked at.
    pub fn waiting(&mut self) -> Vec<Delivery> {
        let mut cx = Context::from_waker(Waker::noop());
        let mut waiting = Vec::new();
        while let Poll::Ready(Some(delivery)) = Pin::new(&mut self.inbox).poll_next(&mut cx) {
            waiting.push(delivery);
        }
        waiting
    }
}

/// Publishes, waiting for room, and returns what will tell the result.
pub async fn offer(
    bus: &NatsBus,
    channel: &Channel,
    frame: Frame,
) -> oneshot::Receiver<Result<Option<u64>, BusError>> {
    loop {
        let (tell, told) = oneshot::channel();
        let tell = Arc::new(Mutex::new(Some(tell)));
        let later = Arc::clone(&tell);
        let send = |tell: &Mutex<Option<oneshot::Sender<_>>>, result| {
            drop(tell.lock().unwrap().take().map(|tell| tell.send(result)));
        };
        let reply_to = ReplyTo::new(move |result| send(&later, result));
        match bus.publish(Offer::new(channel.clone(), frame.clone(), reply_to), &mut WakeList::new()) {
            Ok(Accepted::Later) => return told,
            Ok(Accepted::Failed(error)) => {
                send(&tell, Err(error));
                return told;
            }
            Ok(Accepted::Done(count)) => {
                send(&tell, Ok(count));
                return told;
            }
            Err(Full) => poll_fn(|cx| bus.poll_ready(cx)).await,
        }
    }
}

pub async fn publish(bus: &NatsBus, channel: &Channel, frame: Frame) -> Result<Option<u64>, BusError> {
    psrpc::bus::publish(bus, channel.clone(), frame).await
}

/// Returns the next delivery at any of the subscribers, and the index of that subscriber.
#[allow(dead_code, reason = "the test of the thread has one subscriber")]
pub async fn next_of(ears: impl IntoIterator<Item = &mut Ear>) -> (usize, Delivery) {
    let mut ears: Vec<_> = ears.into_iter().collect();
    poll_fn(|cx| {
        for (index, ear) in ears.iter_mut().enumerate() {
            if let Poll::Ready(delivery) = Pin::new(&mut ear.inbox).poll_next(cx) {
                return Poll::Ready((index, delivery.expect("it has not ended")));
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

/// Returns the next event of a bus, which has to happen within 20 seconds.
pub async fn event(events: &mut Watcher) -> BusEvent {
    let next = poll_fn(|cx| Pin::new(&mut *events).poll_next(cx));
    within(20 * SECOND, "something happens", next).await.expect("events do not end")
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

/// Returns the result of a future, which has to be ready within `limit`.
pub async fn within<T>(limit: Duration, what: &str, future: impl Future<Output = T>) -> T {
    let result = tokio::time::timeout(limit, future).await;
    result.unwrap_or_else(|_| panic!("waited in vain for {limit:?} until {what}"))
}

/// Tries every 5 ms until a condition holds. For conditions that take a new publish each time:
/// nothing tells a publisher that a server has taken up a subscription or a configuration.
pub async fn until(limit: Duration, what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !holds().await {
        assert!(start.elapsed() < limit, "waited in vain for {limit:?} until {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// An executor that is not tokio's.
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
