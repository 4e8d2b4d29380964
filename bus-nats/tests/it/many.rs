//! Large numbers of subscriptions.

use std::time::Instant;

use psrpc::SubscriptionKind::Plain;
use psrpc::bus::Delivery;
use psrpc_bus_nats::NatsBus;

use crate::support::{SECOND, Subscriber, frame, publish, runtime, topic};
use psrpc_servers::Server;

const TOPICS: u32 = 10_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_topics_are_live_soon_and_soon_after_a_restart() {
    let mut server = Server::nats(&[]);
    let bus = NatsBus::connect(&server.url(), runtime()).await.unwrap();
    let channel = |number: u32| topic(&format!("topic-{number}"));
    let start = Instant::now();
    let mut subscribers: Vec<_> =
        (0..TOPICS).map(|number| Subscriber::new(&bus, &channel(number), Plain, 10)).collect();
    for subscriber in &mut subscribers {
        let delivery = subscriber.next().await;
        assert!(matches!(delivery, Delivery::Live), "{delivery:?}");
    }
    let live = start.elapsed();
    server.kill();
    server.start();
    let start = Instant::now();
    for subscriber in &mut subscribers {
        let delivery = subscriber.next().await;
        assert!(matches!(delivery, Delivery::Interrupted(_)), "{delivery:?}");
        let delivery = subscriber.next().await;
        assert!(matches!(delivery, Delivery::Live), "{delivery:?}");
    }
    let again = start.elapsed();
    for number in 0..TOPICS {
        publish(&bus, &channel(number), frame(number)).await.unwrap();
    }
    for (number, subscriber) in (0..).zip(&mut subscribers) {
        assert_eq!(subscriber.number().await, number);
    }
    let start = Instant::now();
    for subscriber in &mut subscribers {
        subscriber.subscription = None;
    }
    for subscriber in &mut subscribers {
        let delivery = subscriber.next().await;
        assert!(matches!(delivery, Delivery::Ended(None)), "{delivery:?}");
    }
    println!("live after {live:?}, again after {again:?}, ended after {:?}", start.elapsed());
    assert!(live < 10 * SECOND && again < 5 * SECOND && start.elapsed() < 10 * SECOND);
    // Nothing is left of the old subscriptions.
    publish(&bus, &channel(0), frame(0)).await.unwrap();
    let mut subscriber = Subscriber::live(&bus, &channel(0), Plain).await;
    publish(&bus, &channel(0), frame(1)).await.unwrap();
    assert_eq!(subscriber.number().await, 1);
    assert!(subscriber.waiting().is_empty());
}
