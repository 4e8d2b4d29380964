//! Status and events of a bus, and restored subscriptions.

mod common;

use std::pin::Pin;
use std::task::{Context, Waker};

use futures_core::Stream;
use psrpc_bus_redis::RedisBus;
use psrpc_servers::Server;
use psrpc_tokio::SubscriptionKind;
use psrpc_tokio::bus::{Bus, BusEvent, Delivery, Status, Watcher};

use self::common::{
    LONG, channel, connect, event, execute, frame, next, publish, runtime, subscribe, subscribe_live, within,
};

fn watch(bus: &RedisBus) -> Watcher {
    bus.monitor().unwrap().watch()
}

fn is_quiet(watcher: &mut Watcher) -> bool {
    Pin::new(watcher).poll_next(&mut Context::from_waker(Waker::noop())).is_pending()
}

/// Checks that the error of a server that refuses a lock is reported in an event, and the lost
/// frame as a gap.
async fn check_refused_lock(server: &Server, credentials: &str, error: &str) {
    let bus = RedisBus::connect(&server.url_with(credentials), runtime()).await.unwrap();
    let (mut inbox, _subscription) = subscribe_live(&bus, &channel("Fit"), SubscriptionKind::Queue).await;
    let mut events = watch(&bus);
    for text in ["a fez", "a bowler"] {
        publish(&bus, &channel("Fit"), frame(text)).await.unwrap();
        assert!(matches!(next(&mut inbox).await, Delivery::Gap(Some(_))));
        let BusEvent::LockRefused { channel, cause, count } = event(&mut events).await else {
            panic!("unexpected event")
        };
        let expected = format!("redis at 127.0.0.1:{}: {error}", server.port());
        assert!(cause.to_string().starts_with(&expected), "{cause}, expected {expected}");
        assert_eq!((channel.as_str(), count), ("Hats|Fit|REQ", 1));
    }
    assert!(is_quiet(&mut events) && matches!(bus.status(), Status::Connected));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_refuses_locks_to_a_user_without_permission() {
    let server = Server::redis(&[]);
    execute(&server, "ACL SETUSER hatter on >right ~* &* +@all -set").await;
    check_refused_lock(&server, "hatter:right@", "NOPERM").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_memory_refuses_locks() {
    let server = Server::redis(&[]);
    execute(&server, "CONFIG SET maxmemory 1").await;
    check_refused_lock(&server, "", "OOM command not allowed when used memory > 'maxmemory'").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_its_replicas_refuses_locks() {
    let server = Server::redis(&["--min-replicas-to-write", "1"]);
    check_refused_lock(&server, "", "NOREPLICAS Not enough good replicas to write").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_is_one_outage_with_one_gap() {
    let mut server = Server::redis(&[]);
    let bus = connect(&server).await;
    let (mut inbox, _subscription) = subscribe_live(&bus, &channel("Fit"), SubscriptionKind::Plain).await;
    let mut events = watch(&bus);
    for round in 0..5 {
        if round % 2 == 0 {
            server.stop();
        } else {
            server.kill();
        }
        let BusEvent::ConnectionLost { cause, .. } = event(&mut events).await else {
            panic!("expected a lost connection")
        };
        assert!(cause.to_string().starts_with(&format!("redis at 127.0.0.1:{}: ", server.port())), "{cause}");
        assert!(matches!(bus.status(), Status::Reconnecting { .. }));
        let Delivery::Interrupted(cause) = next(&mut inbox).await else { panic!("expected an interruption") };
        assert!(cause.to_string().starts_with("redis at 127.0.0.1:"), "{cause}");
        publish(&bus, &channel("Fit"), frame("a fez")).await.unwrap_err();
        server.start();
        let BusEvent::Reconnected { after } = event(&mut events).await else {
            panic!("expected a reconnect")
        };
        assert!(after < LONG && matches!(bus.status(), Status::Connected));
        assert!(matches!(next(&mut inbox).await, Delivery::Live), "there is no separate gap");
        publish(&bus, &channel("Fit"), frame("a bowler")).await.unwrap();
        assert!(matches!(next(&mut inbox).await, Delivery::Frame(_)));
        assert!(is_quiet(&mut events), "in round {round}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_connection_that_is_killed_is_one_outage() {
    let server = Server::redis(&[]);
    let bus = connect(&server).await;
    let (mut inbox, _subscription) = subscribe_live(&bus, &channel("Fit"), SubscriptionKind::Plain).await;
    let mut events = watch(&bus);
    for (kind, interrupted) in [("pubsub", true), ("normal", false), ("pubsub", true)] {
        execute(&server, &format!("CLIENT KILL TYPE {kind}")).await;
        assert!(matches!(event(&mut events).await, BusEvent::ConnectionLost { .. }));
        assert!(matches!(event(&mut events).await, BusEvent::Reconnected { .. }));
        if interrupted {
            assert!(matches!(next(&mut inbox).await, Delivery::Interrupted(_)));
            assert!(matches!(next(&mut inbox).await, Delivery::Live));
        }
        publish(&bus, &channel("Fit"), frame("a hat")).await.unwrap();
        assert!(matches!(next(&mut inbox).await, Delivery::Frame(_)));
        assert!(is_quiet(&mut events));
    }
}

/// Redis kills the connections of a user who loses access to a channel, and then refuses the
/// subscription.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subscriptions_are_restored_when_revoked_permissions_are_granted_again() {
    let server = Server::redis(&[]);
    execute(&server, "ACL SETUSER hatter on >right ~* &* +@all").await;
    let bus = RedisBus::connect(&server.url_with("hatter:right@"), runtime()).await.unwrap();
    let (mut inbox, _subscription) = subscribe_live(&bus, &channel("Fit"), SubscriptionKind::Plain).await;
    let (mut queue, _queue) = subscribe_live(&bus, &channel("Pick"), SubscriptionKind::Queue).await;
    for _ in 0..2 {
        let mut events = watch(&bus);
        execute(&server, "ACL SETUSER hatter resetchannels").await;
        let mut refused = Vec::new();
        while refused.len() < 2 {
            match event(&mut events).await {
                BusEvent::SubscriptionRefused { channel, cause } => {
                    assert!(cause.to_string().contains("NOPERM"), "{cause}");
                    assert!(
                        cause.to_string().starts_with(&format!("cannot subscribe to {channel}: ")),
                        "{cause}"
                    );
                    refused.push(channel);
                }
                BusEvent::ConnectionLost { .. } | BusEvent::Reconnected { .. } => {}
                other => panic!("{other:?}"),
            }
        }
        refused.sort();
        assert_eq!(refused, ["Hats|Fit|REQ", "Hats|Pick|REQ"], "each is reported once");
        // A subscription that was never live fails.
        let (mut newcomer, _newcomer) = subscribe(&bus, &channel("Fit"), SubscriptionKind::Plain);
        assert!(matches!(next(&mut newcomer).await, Delivery::Ended(Some(_))));
        execute(&server, "ACL SETUSER hatter allchannels").await;
        for inbox in [&mut inbox, &mut queue] {
            // The first interruption may be the lost connection.
            let mut causes = Vec::new();
            while let Delivery::Interrupted(cause) = next(inbox).await {
                causes.push(cause.to_string());
            }
            assert!(causes.len() <= 2 && causes.last().unwrap().contains("NOPERM"), "{causes:?}");
        }
        within(bus.monitor().unwrap().connected()).await.unwrap();
        for (inbox, method) in [(&mut inbox, "Fit"), (&mut queue, "Pick")] {
            execute(&server, "FLUSHALL").await;
            publish(&bus, &channel(method), frame("a hat")).await.unwrap();
            assert!(matches!(next(inbox).await, Delivery::Frame(_)));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_dropped_without_room_for_their_lock_are_reported() {
    use psrpc_bus_redis::RedisOptions;

    let server = Server::redis(&[]);
    let bus = common::connect_with(&server, RedisOptions::new().queue_bytes(1)).await;
    let (mut inbox, _subscription) = subscribe_live(&bus, &channel("Fit"), SubscriptionKind::Queue).await;
    let mut events = watch(&bus);
    let mut foreign = common::foreign(&server).await;
    // In one transaction, so that all arrive while the first waits for its lock.
    let mut pipeline = redis::pipe();
    pipeline.atomic();
    for number in 0..500 {
        let bytes = frame(format!("hat {number}").leak()).encode("");
        pipeline.cmd("PUBLISH").arg(channel("Fit").legacy()).arg(&bytes[..]).ignore();
    }
    pipeline.exec_async(&mut foreign).await.unwrap();
    let (mut frames, mut gaps) = (0, 0);
    while frames + gaps < 500 {
        match next(&mut inbox).await {
            Delivery::Frame(_) => frames += 1,
            Delivery::Gap(lost) => gaps += lost.unwrap(),
            other => panic!("{other:?}"),
        }
    }
    assert!(frames > 0 && gaps > 0, "{frames} frames and {gaps} gaps");
    let mut reported = 0;
    while reported < gaps {
        let BusEvent::Dropped { channel, count } = event(&mut events).await else {
            panic!("unexpected event")
        };
        assert_eq!(channel, "Hats|Fit|REQ");
        reported += count;
    }
    assert_eq!(reported, gaps);
}
