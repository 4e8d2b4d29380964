//! A Redis Cluster.

mod common;

use std::time::Duration;

use psrpc_bus_redis::{RedisBus, RedisOptions};
use psrpc_servers::{RedisClient, RedisCluster, RedisClusterOptions, Server};
use psrpc_tokio::SubscriptionKind;
use psrpc_tokio::bus::{Bus, BusEvent, Delivery, Status};

use self::common::{LONG, channel, event, frame, next, now, publish, runtime, subscribe_live, within, works};

async fn connect(url: &str) -> RedisBus {
    RedisBus::connect(url, runtime()).await.unwrap()
}

/// The URL of one node of a cluster.
fn of_node(cluster: &mut RedisCluster, number: usize) -> String {
    format!("redis+cluster://127.0.0.1:{}", cluster.node(number).port())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frame_reaches_every_node_and_one_member_of_a_queue() {
    let mut cluster = RedisCluster::new(&RedisClusterOptions::default());
    let mut buses = Vec::new();
    for node in 0..3 {
        buses.push(connect(&of_node(&mut cluster, node)).await);
    }
    let mut plain = Vec::new();
    let mut queues = Vec::new();
    for bus in &buses {
        plain.push(subscribe_live(bus, &channel("Fit"), SubscriptionKind::Plain).await);
        queues.push(subscribe_live(bus, &channel("Pick"), SubscriptionKind::Queue).await);
    }
    // Enough frames that the slots of every node get some of their locks.
    for number in 0..30 {
        let text: &'static str = format!("hat {number}").leak();
        let receivers = publish(&buses[number % 3], &channel("Pick"), frame(text)).await.unwrap();
        assert_eq!(receivers, None, "the receivers on one node are not all receivers");
        let mut deliveries: Vec<_> = queues.iter_mut().map(|(inbox, _)| Box::pin(next(inbox))).collect();
        let delivery = within(std::future::poll_fn(|cx| {
            let ready =
                deliveries.iter_mut().map(|next| next.as_mut().poll(cx)).find(std::task::Poll::is_ready);
            ready.unwrap_or(std::task::Poll::Pending)
        }))
        .await;
        assert!(matches!(delivery, Delivery::Frame(_)), "{delivery:?}");
    }
    publish(&buses[0], &channel("Fit"), frame("a hat")).await.unwrap();
    for (inbox, _) in &mut plain {
        assert!(matches!(next(inbox).await, Delivery::Frame(_)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slots_that_move_are_followed() {
    let cluster = RedisCluster::new(&RedisClusterOptions::default());
    let bus = connect(&cluster.url()).await;
    let mut events = bus.monitor().unwrap().watch();
    let move_all = |step: fn(&RedisCluster)| tokio::task::block_in_place(|| step(&cluster));
    for _ in 0..10 {
        works(&bus).await;
    }
    // New keys of these slots get `ASK`, then `MOVED`.
    move_all(|cluster| cluster.start_moving(0..2000, 0, 1));
    for _ in 0..20 {
        works(&bus).await;
    }
    move_all(|cluster| cluster.finish_moving(0..2000, 0, 1));
    move_all(|cluster| cluster.move_slots(6000..8000, 1, 2));
    for _ in 0..40 {
        works(&bus).await;
    }
    let quiet = tokio::time::timeout(Duration::from_millis(1), event(&mut events)).await;
    assert!(quiet.is_err() && matches!(bus.status(), Status::Connected), "{quiet:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_node_is_followed_by_its_replica() {
    let mut cluster = RedisCluster::new(&RedisClusterOptions { replicas: true, ..Default::default() });
    // One bus is connected to the node that is lost, the other is not.
    let [near, far] = [of_node(&mut cluster, 0), of_node(&mut cluster, 1)];
    let (near, far) = (connect(&near).await, connect(&far).await);
    works(&near).await;
    works(&far).await;
    let (mut near_events, mut far_events) = (near.monitor().unwrap().watch(), far.monitor().unwrap().watch());
    cluster.node(0).kill();
    assert!(matches!(event(&mut near_events).await, BusEvent::ConnectionLost { .. }));
    assert!(matches!(event(&mut near_events).await, BusEvent::Reconnected { .. }));
    tokio::task::block_in_place(|| cluster.wait_for_new_owner(0, 0));
    let elected = now();
    for bus in [&near, &far] {
        // Locks of the lost slots are refused until the bus has heard of the new owner.
        let mut successes = 0;
        while successes < 20 {
            successes = if try_queue(bus).await { successes + 1 } else { 0 };
            assert!(now() - elected < LONG, "no locks {:?} after the election", now() - elected);
        }
    }
    // A bus that was not connected to the lost node lost nothing but locks.
    loop {
        let next = tokio::time::timeout(Duration::from_millis(1), event(&mut far_events)).await;
        match next {
            Ok(BusEvent::LockRefused { cause, .. }) => {
                assert!(cause.to_string().starts_with("redis at 127.0.0.1:"), "{cause}");
            }
            Ok(other) => panic!("{other:?}"),
            Err(_) => break,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_node_delays_no_published_frame_and_its_locks_are_refused() {
    let mut cluster = RedisCluster::new(&RedisClusterOptions::default());
    let bus = connect(&of_node(&mut cluster, 0)).await;
    let (mut inbox, _subscription) = subscribe_live(&bus, &channel("Fit"), SubscriptionKind::Plain).await;
    let mut events = bus.monitor().unwrap().watch();
    cluster.node(2).freeze();
    // Until a lock is in the slots of the frozen node.
    let mut is_refused = false;
    while !is_refused {
        let (queue, frames) = tokio::join!(try_queue(&bus), async {
            let begun = now();
            publish(&bus, &channel("Fit"), frame("a hat")).await.unwrap();
            assert!(matches!(next(&mut inbox).await, Delivery::Frame(_)));
            now() - begun
        });
        assert!(frames < Duration::from_secs(3), "a frame took {frames:?}");
        is_refused = !queue;
    }
    let BusEvent::LockRefused { cause, .. } = event(&mut events).await else { panic!("it is refused") };
    assert!(cause.to_string().starts_with("redis at 127.0.0.1:"), "{cause}");
    cluster.node(2).thaw();
    let thawed = now();
    let mut successes = 0;
    while successes < 20 {
        successes = if try_queue(&bus).await { successes + 1 } else { 0 };
        assert!(now() - thawed < LONG, "no locks {:?} after the node went on", now() - thawed);
    }
}

/// The frozen node keeps its slots, and the others serve theirs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_node_delays_no_locks_of_other_nodes() {
    let mut cluster = RedisCluster::new(&RedisClusterOptions::default());
    for number in 0..3 {
        let mut client = RedisClient::connect(cluster.node(number).port(), None, None).unwrap();
        client.command(&["CONFIG", "SET", "cluster-require-full-coverage", "no"]).unwrap();
    }
    let bus = connect(&of_node(&mut cluster, 0)).await;
    let (mut inbox, _subscription) = subscribe_live(&bus, &channel("Fit"), SubscriptionKind::Queue).await;
    let mut events = bus.monitor().unwrap().watch();
    let frozen = format!("redis at 127.0.0.1:{}: ", cluster.node(2).port());
    cluster.node(2).freeze();
    let frozen_at = now();
    let mut refusals = 0;
    for number in 0.. {
        let text = format!("beret {number}");
        publish(&bus, &channel("Fit"), frame(text.leak())).await.unwrap();
        while let Some(event) = waiting(&mut events) {
            let BusEvent::LockRefused { cause, .. } = event else { panic!("unexpected event: {event:?}") };
            assert!(cause.to_string().starts_with(&frozen), "{cause}");
            refusals += 1;
        }
        // Frames must go on while the locks of the frozen node wait, and wait again.
        tokio::time::sleep(Duration::from_millis(5)).await;
        if now() - frozen_at > Duration::from_secs(5) && refusals > 1 {
            break;
        }
        assert!(now() - frozen_at < LONG, "{refusals} refusals");
    }
    let mut frames = 0;
    while let Some(delivery) = waiting(&mut inbox) {
        frames += usize::from(matches!(delivery, Delivery::Frame(_)));
    }
    assert!(frames > 0, "the other nodes have locked frames");
}

/// Returns the next item of a stream, if there is one.
fn waiting<S: futures_core::Stream + Unpin>(stream: &mut S) -> Option<S::Item> {
    use std::task::{Context, Poll, Waker};

    match std::pin::Pin::new(stream).poll_next(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(item) => item,
        Poll::Pending => None,
    }
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_for_locks_that_a_node_closed_is_replaced_before_it_is_used() {
    let mut cluster = RedisCluster::new(&RedisClusterOptions::default());
    let bus = connect(&of_node(&mut cluster, 0)).await;
    for _ in 0..3 {
        // Until there is a connection to each master.
        for _ in 0..20 {
            works(&bus).await;
        }
        for number in 1..3 {
            let port = cluster.node(number).port();
            let mut client = RedisClient::connect(port, None, None).unwrap();
            client.command(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).unwrap();
            drop(client);
            within(async {
                while is_connected_to(port) {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            })
            .await;
        }
        for _ in 0..20 {
            works(&bus).await;
        }
    }
}

/// Returns `true` if a client on this machine has not closed its connection to a port of 127.0.0.1.
#[cfg(target_os = "linux")]
fn is_connected_to(port: u16) -> bool {
    const ESTABLISHED: &str = "01";
    const CLOSED_BY_THE_SERVER: &str = "08";
    let remote = format!("0100007F:{port:04X}");
    let sockets = std::fs::read_to_string("/proc/net/tcp").unwrap();
    sockets.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).any(|fields| {
        fields.get(2) == Some(&remote.as_str()) && [ESTABLISHED, CLOSED_BY_THE_SERVER].contains(&fields[3])
    })
}

/// Publishes a unique frame to a queue. Returns `true` if the queue gets it.
async fn try_queue(bus: &RedisBus) -> bool {
    use std::sync::atomic::{AtomicUsize, Ordering};

    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let text = format!("cap {}", COUNT.fetch_add(1, Ordering::Relaxed));
    let (mut inbox, _subscription) = subscribe_live(bus, &channel("Try"), SubscriptionKind::Queue).await;
    publish(bus, &channel("Try"), frame(text.leak())).await.unwrap();
    matches!(next(&mut inbox).await, Delivery::Frame(_))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_and_a_single_server_are_not_mixed_up() {
    let mut cluster = RedisCluster::new(&RedisClusterOptions::default());
    let port = cluster.node(0).port();
    let error = RedisBus::connect(&format!("redis://127.0.0.1:{port}"), runtime()).await.unwrap_err();
    let expected = "the server is a node of a Redis Cluster: use `redis+cluster://`";
    assert_eq!(error.to_string(), format!("redis at 127.0.0.1:{port}: {expected}"));
    let server = Server::redis(&[]);
    let error = RedisBus::connect(&format!("redis+cluster://127.0.0.1:{}", server.port()), runtime()).await;
    let expected = "the server is no node of a Redis Cluster: use `redis://` for a single server";
    assert_eq!(error.unwrap_err().to_string(), format!("redis at 127.0.0.1:{}: {expected}", server.port()));
    // A node that no slots were assigned to yet.
    let node = Server::redis(&["--cluster-enabled", "yes"]);
    let error = RedisBus::connect(&format!("redis+cluster://127.0.0.1:{}", node.port()), runtime()).await;
    assert!(error.unwrap_err().to_string().contains("cluster_state:fail"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn locks_keep_their_prefix_and_a_closed_bus_ends() {
    let cluster = RedisCluster::new(&RedisClusterOptions::default());
    let options = RedisOptions::new().channel_prefix("{hats}");
    let bus = RedisBus::connect_with(&cluster.url(), runtime(), options).await.unwrap();
    works(&bus).await;
    let mut events = bus.monitor().unwrap().watch();
    drop(bus);
    assert!(matches!(event(&mut events).await, BusEvent::Stopped { .. }), "every task has ended");
}

#[cfg(feature = "smol")]
#[test]
fn a_bus_on_smol_uses_a_cluster() {
    use psrpc_smol::SmolRuntime;
    use psrpc_smol::bus::{Inbox, WakeList};

    let cluster = RedisCluster::new(&RedisClusterOptions::default());
    smol::block_on(async {
        let bus = RedisBus::connect(&cluster.url(), SmolRuntime).await.unwrap();
        let (sink, mut inbox) = Inbox::new(10);
        let _subscription =
            bus.subscribe(&channel("Fit"), SubscriptionKind::Queue, sink, &mut WakeList::new());
        let mut next = async || {
            let next = std::future::poll_fn(|cx| {
                futures_core::Stream::poll_next(std::pin::Pin::new(&mut inbox), cx)
            });
            next.await.expect("it goes on")
        };
        assert!(matches!(next().await, Delivery::Live));
        psrpc_smol::bus::publish(&bus, channel("Fit"), frame("a hat")).await.unwrap();
        assert!(matches!(next().await, Delivery::Frame(_)));
    });
}

#[cfg(feature = "tls")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_with_tls_and_a_password() {
    use psrpc_bus_redis::TlsOptions;
    use psrpc_servers::{Certificates, ServerTls};

    let certificates = Certificates::new();
    let (tls, password) = (Some(ServerTls::new(&certificates)), Some("right".into()));
    let cluster = RedisCluster::new(&RedisClusterOptions { tls, password, replicas: false });
    let tls = TlsOptions::new().ca(certificates.authority().pem());
    let options = RedisOptions::new().tls(move || Ok::<_, std::io::Error>(tls.clone()));
    let url = cluster.url_with(":right@");
    let bus = RedisBus::connect_with(&url, runtime(), options.clone()).await.unwrap();
    for _ in 0..10 {
        works(&bus).await;
    }
    let error = RedisBus::connect_with(&cluster.url_with(":s3cret@"), runtime(), options).await.unwrap_err();
    let error = error.to_string();
    assert!(error.contains("WRONGPASS") && !error.contains("s3cret"), "{error}");
}
