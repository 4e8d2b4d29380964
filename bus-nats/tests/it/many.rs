//! Many subscriptions.

use std::time::Instant;

use psrpc::SubscriptionKind::Plain;
use psrpc::bus::Delivery;
use psrpc_bus_nats::NatsBus;

use crate::support::{Ear, SECOND, frame, publish, runtime, topic};
use psrpc_servers::Server;

const TOPICS: u32 = 10_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_topics_are_live_soon_and_again_after_a_restart() {
    let mut server = Server::nats(&[]);
    let bus = NatsBus::connect(&server.url(), runtime()).await.unwrap();
    let channel = |number: u32| topic(&format!("topic-{number}"));
    let start = Instant::now();
    let mut ears: Vec<_> = (0..TOPICS).map(|number| Ear::new(&bus, &channel(number), Plain, 10)).collect();
    for ear in &mut ears {
        let delivery = ear.next().await;
        assert!(matches!(delivery, Delivery::Live), "{delivery:?}");
    }
    let live = start.elapsed();
    server.kill();
    server.start();
    let start = Instant::now();
    for ear in &mut ears {
        let delivery = ear.next().await;
        assert!(matches!(delivery, Delivery::Interrupted(_)), "{delivery:?}");
        let delivery = ear.next().await;
        assert!(matches!(delivery, Delivery::Live), "{delivery:?}");
    }
    let again = start.elapsed();
    for number in 0..TOPICS {
        publish(&bus, &channel(number), frame(number)).await.unwrap();
    }
    for (number, ear) in (0..).zip(&mut ears) {
        assert_eq!(ear.number().await, number);
    }
    let start = Instant::now();
    for ear in &mut ears {
        ear.subscription = None;
    }
    for ear in &mut ears {
        let delivery = ear.next().await;
        assert!(matches!(delivery, Delivery::Ended(None)), "{delivery:?}");
    }
    println!("live after {live:?}, again after {again:?}, ended after {:?}", start.elapsed());
    assert!(live < 10 * SECOND && again < 5 * SECOND && start.elapsed() < 10 * SECOND);
    // There is nothing left of them.
    publish(&bus, &channel(0), frame(0)).await.unwrap();
    let mut ear = Ear::live(&bus, &channel(0), Plain).await;
    publish(&bus, &channel(0), frame(1)).await.unwrap();
    assert_eq!(ear.number().await, 1);
    assert!(ear.waiting().is_empty());
}
