//! Servers that answer but do not serve: a demoted master, and two servers behind one address.

mod common;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use psrpc_bus_redis::{RedisBus, RedisOptions};
use psrpc_servers::Server;
use psrpc_tokio::SubscriptionKind;
use psrpc_tokio::bus::{Bus, BusEvent, Delivery, Status};

use self::common::{
    channel, connect, event, execute, frame, next, now, publish, runtime, subscribe_live, within,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_demoted_master_is_noticed_within_five_seconds_and_the_bus_heals() {
    let (server, other) = (Server::redis(&[]), Server::redis(&[]));
    let bus = connect(&server).await;
    let (mut inbox, _subscription) = subscribe_live(&bus, &channel("Fit"), SubscriptionKind::Queue).await;
    let mut events = bus.monitor().unwrap().watch();
    for _ in 0..2 {
        let demoted = now();
        execute(&server, &format!("REPLICAOF 127.0.0.1 {}", other.port())).await;
        let BusEvent::ConnectionLost { cause, .. } = event(&mut events).await else { panic!("it is lost") };
        assert!(now() - demoted < Duration::from_secs(5), "noticed after {:?}", now() - demoted);
        let expected = format!(
            "redis at 127.0.0.1:{}: the server is a read-only replica: the bus needs the master",
            server.port()
        );
        assert_eq!(cause.to_string(), expected);
        // The other connection is probed at once, too.
        let error = loop {
            if let Err(error) = publish(&bus, &channel("Fit"), frame("a fez")).await {
                break error.to_string();
            }
        };
        assert!(now() - demoted < Duration::from_secs(5), "failed after {:?}", now() - demoted);
        assert!(error.contains("read-only replica"), "{error}");
        let Delivery::Interrupted(cause) = next(&mut inbox).await else { panic!("it is interrupted") };
        assert!(cause.to_string().contains("read-only replica"), "{cause}");
        execute(&server, "REPLICAOF NO ONE").await;
        within(bus.monitor().unwrap().connected()).await.unwrap();
        assert!(matches!(event(&mut events).await, BusEvent::Reconnected { .. }));
        assert!(matches!(next(&mut inbox).await, Delivery::Live));
        execute(&server, "FLUSHALL").await;
        publish(&bus, &channel("Fit"), frame("a bowler")).await.unwrap();
        assert!(matches!(next(&mut inbox).await, Delivery::Frame(_)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_demoted_master_is_noticed_while_the_bus_is_busy() {
    let (server, other) = (Server::redis(&[]), Server::redis(&[]));
    let bus = connect(&server).await;
    let mut events = bus.monitor().unwrap().watch();
    let busy = tokio::spawn({
        let bus = bus.clone();
        async move { while publish(&bus, &channel("Fit"), frame("a hat")).await.is_ok() {} }
    });
    let demoted = now();
    execute(&server, &format!("REPLICAOF 127.0.0.1 {}", other.port())).await;
    assert!(matches!(event(&mut events).await, BusEvent::ConnectionLost { .. }));
    assert!(now() - demoted < Duration::from_secs(5), "noticed after {:?}", now() - demoted);
    within(busy).await.unwrap();
}

#[cfg(feature = "smol")]
#[test]
fn a_demoted_master_is_noticed_on_smol() {
    use psrpc_servers::RedisClient;
    use psrpc_smol::SmolRuntime;

    let server = Server::redis(&[]);
    let other = Server::redis(&[]);
    let mut client = RedisClient::connect(server.port(), None, None).unwrap();
    smol::block_on(async {
        let options = RedisOptions::new().ping_interval(Duration::from_millis(100));
        let bus = RedisBus::connect_with(&server.url(), SmolRuntime, options).await.unwrap();
        let mut events = bus.monitor().unwrap().watch();
        let mut next = async || {
            let next = std::future::poll_fn(|cx| {
                futures_core::Stream::poll_next(std::pin::Pin::new(&mut events), cx)
            });
            next.await.expect("the events go on")
        };
        client.command(&["REPLICAOF", "127.0.0.1", &other.port().to_string()]).unwrap();
        assert!(matches!(next().await, BusEvent::ConnectionLost { .. }));
        client.command(&["REPLICAOF", "NO", "ONE"]).unwrap();
        assert!(matches!(next().await, BusEvent::Reconnected { .. }));
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_is_refused_when_the_bus_connects() {
    let (server, other) = (Server::redis(&[]), Server::redis(&[]));
    execute(&server, &format!("REPLICAOF 127.0.0.1 {}", other.port())).await;
    let error = RedisBus::connect(&server.url(), runtime()).await.unwrap_err().to_string();
    assert!(error.contains("the server is a read-only replica"), "{error}");
}

/// Forwards the connections to an address to two servers in turn, as a careless proxy does. Counts
/// the connections.
fn proxy(servers: [u16; 2]) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let count = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&count);
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let number = counter.fetch_add(1, Ordering::Relaxed);
            let server = TcpStream::connect(("127.0.0.1", servers[number % 2])).unwrap();
            for (from, to) in [(&client, &server), (&server, &client)] {
                let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                std::thread::spawn(move || {
                    let mut buffer = [0; 4096];
                    while let Ok(count @ 1..) = from.read(&mut buffer) {
                        if to.write_all(&buffer[..count]).is_err() {
                            break;
                        }
                    }
                    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
                });
            }
        }
    });
    (port, count)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_to_two_servers_that_do_not_meet_are_both_replaced() {
    let servers = [Server::redis(&[]), Server::redis(&[])];
    let (port, count) = proxy([servers[0].port(), servers[1].port()]);
    let options = RedisOptions::new()
        .ping_interval(Duration::from_millis(100))
        .response_timeout(Duration::from_secs(1));
    let url = format!("redis://127.0.0.1:{port}");
    let bus = RedisBus::connect_with(&url, runtime(), options).await.unwrap();
    let mut events = bus.monitor().unwrap().watch();
    for _ in 0..2 {
        let BusEvent::ConnectionLost { cause, .. } = event(&mut events).await else { panic!("it is lost") };
        let expected = "messages published on one connection do not arrive on the other";
        assert_eq!(cause.to_string(), format!("redis at 127.0.0.1:{port}: {expected}"));
        assert!(matches!(event(&mut events).await, BusEvent::Reconnected { .. }));
    }
    assert!(count.load(Ordering::Relaxed) >= 6, "both are replaced");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_without_rights_to_the_probe_works_as_before() {
    let server = Server::redis(&[]);
    execute(&server, "ACL SETUSER hatter on >right ~* +@all resetchannels &Hats|*").await;
    let options = RedisOptions::new()
        .ping_interval(Duration::from_millis(20))
        .response_timeout(Duration::from_millis(500));
    let bus = RedisBus::connect_with(&server.url_with("hatter:right@"), runtime(), options).await.unwrap();
    let (mut inbox, _subscription) = subscribe_live(&bus, &channel("Fit"), SubscriptionKind::Queue).await;
    let mut events = bus.monitor().unwrap().watch();
    // Checks that no connection is lost for many intervals.
    let quiet = tokio::time::timeout(Duration::from_secs(1), event(&mut events)).await;
    assert!(quiet.is_err() && matches!(bus.status(), Status::Connected), "{quiet:?}");
    publish(&bus, &channel("Fit"), frame("a hat")).await.unwrap();
    assert!(matches!(next(&mut inbox).await, Delivery::Frame(_)));
    let refused = execute(&server, "ACL LOG").await;
    let redis::Value::Array(entries) = refused else { panic!("{refused:?}") };
    assert_eq!(entries.len(), 1, "the probe is refused once, and not tried again");
    let text = format!("{:?}", entries[0]);
    assert!(text.contains("psrpc-probe"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_of_the_documented_recipe_is_probed() {
    let server = Server::redis(&[]);
    execute(&server, "ACL SETUSER hatter on >right resetchannels &Hats|* &psrpc-probe:* ~* -@all +hello +ping +publish +subscribe +unsubscribe +set").await;
    let bus = RedisBus::connect(&server.url_with("hatter:right@"), runtime()).await.unwrap();
    let (mut inbox, _subscription) = subscribe_live(&bus, &channel("Fit"), SubscriptionKind::Queue).await;
    publish(&bus, &channel("Fit"), frame("a hat")).await.unwrap();
    assert!(matches!(next(&mut inbox).await, Delivery::Frame(_)));
    let channels = execute(&server, "PUBSUB CHANNELS psrpc-probe:*").await;
    assert!(matches!(&channels, redis::Value::Array(channels) if channels.len() == 1), "{channels:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prefix_separates_fleets() {
    let server = Server::redis(&[]);
    let of = |prefix: &str| RedisOptions::new().channel_prefix(prefix);
    let (ours, theirs) = (
        common::connect_with(&server, of("ours:")).await,
        common::connect_with(&server, of("theirs:")).await,
    );
    let (mut inbox, _subscription) = subscribe_live(&ours, &channel("Fit"), SubscriptionKind::Queue).await;
    assert_eq!(publish(&theirs, &channel("Fit"), frame("a fez")).await.unwrap(), Some(0));
    assert_eq!(publish(&ours, &channel("Fit"), frame("a hat")).await.unwrap(), Some(1));
    assert!(matches!(next(&mut inbox).await, Delivery::Frame(_)));
    let keys = execute(&server, "KEYS ours:*").await;
    assert!(matches!(&keys, redis::Value::Array(keys) if keys.len() == 1), "{keys:?}");
}
