//! What the tests of the bus on a real server have in common.

#![allow(dead_code, reason = "no test program uses all of it")]

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_core::Stream;
use psrpc_bus_redis::{RedisBus, RedisOptions};
use psrpc_servers::Server;
use psrpc_tokio::bus::{Bus, BusEvent, Delivery, Inbox, Subscription, WakeList, Watcher};
use psrpc_tokio::proto::{Any, Channel, Frame};
use psrpc_tokio::{BusError, SubscriptionKind, TokioRuntime};
use redis::aio::MultiplexedConnection;

/// How long anything may take that is awaited.
pub const LONG: Duration = Duration::from_secs(20);

pub fn runtime() -> TokioRuntime {
    TokioRuntime::current().unwrap()
}

pub async fn connect(server: &Server) -> RedisBus {
    connect_with(server, RedisOptions::new()).await
}

pub async fn connect_with(server: &Server, options: RedisOptions) -> RedisBus {
    RedisBus::connect_with(&server.url(), runtime(), options).await.unwrap()
}

pub fn channel(method: &str) -> Channel {
    Channel::request::<&str>("Hats", method, &[], true)
}

pub fn frame(text: &'static str) -> Frame {
    Frame::Other(Any { type_url: "a/b".into(), value: text.into() })
}

/// Subscribes, without waiting for anything.
pub fn subscribe(bus: &RedisBus, channel: &Channel, kind: SubscriptionKind) -> (Inbox, Subscription) {
    let (sink, inbox) = Inbox::new(1000);
    let subscription = bus.subscribe(channel, kind, sink, &mut WakeList::new());
    (inbox, subscription)
}

/// Subscribes, and waits until the subscription is live.
pub async fn listen(bus: &RedisBus, channel: &Channel, kind: SubscriptionKind) -> (Inbox, Subscription) {
    let (mut inbox, subscription) = subscribe(bus, channel, kind);
    assert!(matches!(next(&mut inbox).await, Delivery::Live));
    (inbox, subscription)
}

pub async fn publish(bus: &RedisBus, channel: &Channel, frame: Frame) -> Result<Option<u64>, BusError> {
    within(psrpc_tokio::bus::publish(bus, channel.clone(), frame)).await
}

/// Publishes a frame like no other, and takes it from a queue: a lock is acquired.
pub async fn works(bus: &RedisBus) {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let text = format!("hat {}", COUNT.fetch_add(1, Ordering::Relaxed));
    let (mut inbox, _subscription) = listen(bus, &channel("Works"), SubscriptionKind::Queue).await;
    publish(bus, &channel("Works"), frame(text.leak())).await.unwrap();
    let delivery = next(&mut inbox).await;
    assert!(matches!(delivery, Delivery::Frame(_)), "{delivery:?}");
}

/// The next delivery, which comes.
pub async fn next(inbox: &mut Inbox) -> Delivery {
    let next = poll_fn(|cx| Pin::new(&mut *inbox).poll_next(cx));
    within(next).await.expect("the subscription goes on")
}

/// The next event, which comes.
pub async fn event(watcher: &mut Watcher) -> BusEvent {
    within(poll_fn(|cx| Pin::new(&mut *watcher).poll_next(cx))).await.expect("the events go on")
}

/// The result of a future, which does not hang.
pub async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LONG, future).await.expect("it does not hang")
}

/// A connection of a peer that is not ours.
pub async fn foreign(server: &Server) -> MultiplexedConnection {
    foreign_to(&server.url()).await
}

pub async fn foreign_to(url: &str) -> MultiplexedConnection {
    let client = redis::Client::open(url).unwrap();
    client.get_multiplexed_async_connection().await.unwrap()
}

/// `CLIENT ...`, `ACL ...` and so on, told to the server by somebody else.
pub async fn tell(server: &Server, command: &str) -> redis::Value {
    let mut connection = foreign(server).await;
    let mut words = command.split(' ');
    let mut command = redis::cmd(words.next().unwrap());
    words.for_each(|word| _ = command.arg(word));
    command.query_async(&mut connection).await.unwrap()
}

#[expect(clippy::disallowed_methods, reason = "real servers live in real time")]
pub fn now() -> Instant {
    Instant::now()
}
