//! Helpers for tests on real servers.

#![allow(dead_code, reason = "each test program uses a part of the helpers")]

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

/// The timeout of every wait.
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

/// Subscribes without waiting.
pub fn subscribe(bus: &RedisBus, channel: &Channel, kind: SubscriptionKind) -> (Inbox, Subscription) {
    let (sink, inbox) = Inbox::new(1000);
    let subscription = bus.subscribe(channel, kind, sink, &mut WakeList::new());
    (inbox, subscription)
}

/// Subscribes and waits until the subscription is live.
pub async fn subscribe_live(
    bus: &RedisBus,
    channel: &Channel,
    kind: SubscriptionKind,
) -> (Inbox, Subscription) {
    let (mut inbox, subscription) = subscribe(bus, channel, kind);
    assert!(matches!(next(&mut inbox).await, Delivery::Live));
    (inbox, subscription)
}

pub async fn publish(bus: &RedisBus, channel: &Channel, frame: Frame) -> Result<Option<u64>, BusError> {
    within(psrpc_tokio::bus::publish(bus, channel.clone(), frame)).await
}

/// Checks that a unique frame reaches a queue subscription, which takes a lock.
pub async fn works(bus: &RedisBus) {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let text = format!("hat {}", COUNT.fetch_add(1, Ordering::Relaxed));
    let (mut inbox, _subscription) = subscribe_live(bus, &channel("Works"), SubscriptionKind::Queue).await;
    publish(bus, &channel("Works"), frame(text.leak())).await.unwrap();
    let delivery = next(&mut inbox).await;
    assert!(matches!(delivery, Delivery::Frame(_)), "{delivery:?}");
}

/// Returns the next delivery.
pub async fn next(inbox: &mut Inbox) -> Delivery {
    let next = poll_fn(|cx| Pin::new(&mut *inbox).poll_next(cx));
    within(next).await.expect("the subscription must not end")
}

/// Returns the next event.
pub async fn event(watcher: &mut Watcher) -> BusEvent {
    within(poll_fn(|cx| Pin::new(&mut *watcher).poll_next(cx))).await.expect("events must not end")
}

/// Returns the output of a future, which must complete in time.
pub async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LONG, future).await.expect("timed out")
}

/// Connects to the server without our bus.
pub async fn foreign(server: &Server) -> MultiplexedConnection {
    foreign_to(&server.url()).await
}

pub async fn foreign_to(url: &str) -> MultiplexedConnection {
    let client = redis::Client::open(url).unwrap();
    client.get_multiplexed_async_connection().await.unwrap()
}

/// Sends an administrative command, such as `CLIENT ...` or `ACL ...`, to the server.
pub async fn execute(server: &Server, command: &str) -> redis::Value {
    let mut connection = foreign(server).await;
    let mut arguments = command.split(' ');
    let mut command = redis::cmd(arguments.next().unwrap());
    arguments.for_each(|argument| _ = command.arg(argument));
    command.query_async(&mut connection).await.unwrap()
}

#[expect(clippy::disallowed_methods, reason = "real servers need real time")]
pub fn now() -> Instant {
    Instant::now()
}
