//! Servers that crash, freeze and shut down.

use std::process::Command;
use std::time::Instant;

use psrpc::SubscriptionKind::{Plain, Queue};
use psrpc::bus::Delivery;
use psrpc_bus_nats::{NatsBus, NatsOptions};

use crate::support::{
    SECOND, Subscriber, frame, lost, number, plain, publish, queue, runtime, watch, within,
};
use psrpc_servers::Server;

/// Waits until the subscription is live again. Frames sent just before the outage may arrive first.
async fn live_again(subscriber: &mut Subscriber) {
    loop {
        match subscriber.next().await {
            Delivery::Live => return,
            Delivery::Interrupted(cause) => {
                assert!(cause.to_string().starts_with("not connected to nats://127.0.0.1:"), "{cause}");
            }
            Delivery::Frame(frame) if number(&frame) == 0 => {}
            other => panic!("{other:?}"),
        }
    }
}

async fn survives(server: &mut Server, bus: NatsBus) {
    let mut subscribers = [
        Subscriber::live(&bus, &plain("Make"), Plain).await,
        Subscriber::live(&bus, &queue("Make"), Queue).await,
    ];
    let mut events = watch(&bus);
    for round in 0..3 {
        server.kill();
        let down = lost(SECOND, &mut events).await;
        assert!(down < SECOND / 2, "{down:?}");
        let start = Instant::now();
        let error = publish(&bus, &plain("Make"), frame(0)).await.unwrap_err().to_string();
        assert!(
            start.elapsed() < SECOND / 10 && error.contains("not connected to nats://127.0.0.1:"),
            "{error}"
        );
        // Subscribe during the outage.
        let mut late = Subscriber::new(&bus, &plain("Mend"), Plain, 10);
        let mut dropped = Subscriber::new(&bus, &plain("Lend"), Plain, 10);
        // Outages of different lengths, to cover the growing delays between attempts.
        tokio::time::sleep(SECOND * round).await;
        assert!(late.waiting().is_empty());
        dropped.subscription = None;
        assert!(matches!(dropped.next().await, Delivery::Ended(None)));
        for subscriber in &mut subscribers {
            subscriber.waiting();
        }
        server.start();
        let start = Instant::now();
        for subscriber in &mut subscribers {
            live_again(subscriber).await;
        }
        assert!(matches!(late.next().await, Delivery::Live));
        publish(&bus, &plain("Make"), frame(1)).await.unwrap();
        publish(&bus, &queue("Make"), frame(2)).await.unwrap();
        publish(&bus, &plain("Mend"), frame(3)).await.unwrap();
        assert_eq!(
            (subscribers[0].number().await, subscribers[1].number().await, late.number().await),
            (1, 2, 3)
        );
        assert!(start.elapsed() < 2 * SECOND, "{:?}", start.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_and_restarted_is_used_again() {
    let mut server = Server::nats(&[]);
    let bus = NatsBus::connect(&server.url(), runtime()).await.unwrap();
    survives(&mut server, bus).await;
}

#[tokio::test]
async fn a_frozen_server_continues_after_thawing() {
    let server = Server::nats(&[]);
    let bus = NatsBus::connect(&server.url(), runtime()).await.unwrap();
    let mut subscriber = Subscriber::live(&bus, &plain("Make"), Plain).await;
    publish(&bus, &plain("Make"), frame(0)).await.unwrap();
    assert_eq!(subscriber.number().await, 0);
    server.freeze();
    publish(&bus, &plain("Make"), frame(1)).await.unwrap();
    let mut late = Subscriber::new(&bus, &plain("Mend"), Plain, 10);
    let mut other = Subscriber::new(&bus, &queue("Mend"), Queue, 10);
    // Nothing arrives while the server is frozen.
    tokio::time::sleep(SECOND).await;
    for subscriber in [&mut subscriber, &mut other] {
        let waiting = subscriber.waiting();
        assert!(waiting.is_empty(), "{waiting:?}");
    }
    server.thaw();
    assert_eq!(subscriber.number().await, 1);
    assert!(matches!(late.next().await, Delivery::Live));
    assert!(matches!(other.next().await, Delivery::Live));
}

#[tokio::test]
async fn a_server_that_stays_frozen_is_given_up() {
    let server = Server::nats(&[]);
    let options = NatsOptions::new().ping_interval(SECOND / 5).connection_timeout(SECOND);
    let bus = NatsBus::connect_with(&server.url(), runtime(), options).await.unwrap();
    let mut subscriber = Subscriber::live(&bus, &plain("Make"), Plain).await;
    let mut events = watch(&bus);
    server.freeze();
    lost(3 * SECOND, &mut events).await;
    publish(&bus, &plain("Make"), frame(0)).await.unwrap_err();
    server.thaw();
    live_again(&mut subscriber).await;
    publish(&bus, &plain("Make"), frame(1)).await.unwrap();
    assert_eq!(subscriber.number().await, 1);
}

#[tokio::test]
async fn a_server_in_lame_duck_mode_is_left() {
    let pid = tempfile::NamedTempFile::new().unwrap();
    let pid_file = format!("pid_file: {:?}", pid.path());
    let mut server = Server::nats(&["lame_duck_duration: 30s", "lame_duck_grace_period: 100ms", &pid_file]);
    let bus = NatsBus::connect(&server.url(), runtime()).await.unwrap();
    let mut subscriber = Subscriber::live(&bus, &plain("Make"), Plain).await;
    let pid = std::fs::read_to_string(pid.path()).unwrap();
    let mut events = watch(&bus);
    assert!(Command::new("kill").args(["-USR2", pid.trim()]).status().unwrap().success());
    lost(5 * SECOND, &mut events).await;
    publish(&bus, &plain("Mend"), frame(0)).await.unwrap_err();
    server.start();
    live_again(&mut subscriber).await;
    publish(&bus, &plain("Make"), frame(1)).await.unwrap();
    assert_eq!(subscriber.number().await, 1);
}

#[tokio::test]
async fn a_subscriber_that_does_not_read_does_not_delay_others() {
    let server = Server::nats(&[]);
    let bus = NatsBus::connect(&server.url(), runtime()).await.unwrap();
    let mut slow = Subscriber::new(&bus, &plain("Make"), Plain, 10);
    let mut quick = Subscriber::live(&bus, &plain("Make"), Plain).await;
    for number in 0..5000 {
        publish(&bus, &plain("Make"), frame(number)).await.unwrap();
        assert_eq!(quick.number().await, number);
    }
    publish(&bus, &plain("Mend"), frame(0)).await.unwrap();
    // The slow subscriber may get the last frame after the quick one.
    let mut waiting = Vec::new();
    let lost = |delivery: &Delivery| match delivery {
        Delivery::Gap(lost) => lost.unwrap_or_default(),
        Delivery::Frame(_) => 1,
        _ => 0,
    };
    within(SECOND, "all frames have arrived or are reported as lost", async {
        while waiting.iter().map(lost).sum::<u64>() != 5000 {
            waiting.push(slow.next().await);
        }
    })
    .await;
    assert!(waiting.len() <= 1 + 10 + 2, "{waiting:?}");
}

/// The small capacity of the client library is enough, because each message is delivered when it
/// arrives.
#[tokio::test]
async fn a_burst_arrives_completely_even_with_a_small_client_capacity() {
    const FRAMES: u32 = 5000;
    let server = Server::nats(&[]);
    let client = async_nats::ConnectOptions::new().subscription_capacity(10);
    let bus = NatsBus::from_client(&server.url(), client, runtime(), NatsOptions::new()).await.unwrap();
    let other = NatsBus::connect(&server.url(), runtime()).await.unwrap();
    let mut subscribers = [
        Subscriber::live(&bus, &queue("Make"), Queue).await,
        Subscriber::live(&bus, &plain("Make"), Plain).await,
    ];
    for number in 0..FRAMES {
        for channel in [queue("Make"), plain("Make")] {
            drop(crate::support::offer(&other, &channel, frame(number)).await);
        }
    }
    for subscriber in &mut subscribers {
        for number in 0..FRAMES {
            assert_eq!(subscriber.number().await, number);
        }
    }
}
