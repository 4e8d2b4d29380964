//! Clusters: servers that the cluster announces, and servers that shut down.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::time::Instant;

use psrpc::SubscriptionKind::Plain;
use psrpc::bus::{Bus, BusEvent, Delivery, Status};
#[cfg(feature = "tls")]
use psrpc_bus_nats::TlsOptions;
use psrpc_bus_nats::{Credentials, NatsBus, NatsOptions};
#[cfg(feature = "tls")]
use psrpc_servers::{Certificates, ServerTls};
use psrpc_servers::{NatsCluster, Server};

use psrpc_tokio::{ClientStream, MultiCall};

use crate::hats::{self, CENSUS, FIT, Gate, PARADE};
use crate::support::{
    SECOND, Subscriber, event, frame, number, offer, plain, publish, runtime, until, watch, within,
};

/// Waits until a frame passes from a bus to a subscriber. Subscriptions take time to reach other
/// servers, and the bus may be reconnecting.
async fn assert_arrives(bus: &NatsBus, subscriber: &mut Subscriber, sent: u32) {
    until(20 * SECOND, "a frame arrives", async || {
        let _ = publish(bus, &plain("Make"), frame(sent)).await;
        let is_it = |delivery: &Delivery| matches!(delivery, Delivery::Frame(frame) if number(frame) == sent);
        subscriber.waiting().iter().any(is_it)
    })
    .await;
}

/// Connects a bus to the URL of one server, and kills that server. The bus must continue on the
/// other two servers, which it knows only from the cluster's announcements.
async fn lives_on_announced_servers(mut cluster: NatsCluster, options: NatsOptions) {
    let first = cluster.node(0).url();
    let bus = NatsBus::connect_with(&first, runtime(), options).await.unwrap();
    let mut subscriber = Subscriber::live(&bus, &plain("Make"), Plain).await;
    assert_arrives(&bus, &mut subscriber, 1).await;
    cluster.node(0).kill();
    assert_arrives(&bus, &mut subscriber, 2).await;
    // The bus is on one of the other two.
    cluster.node(1).kill();
    assert_arrives(&bus, &mut subscriber, 3).await;
    cluster.node(1).start();
    cluster.node(2).kill();
    assert_arrives(&bus, &mut subscriber, 4).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_the_cluster_announced_are_used_with_the_same_credentials() {
    let users = "authorization { users = [{ user: me, password: s3cret }] }";
    let credentials = || Ok::<_, String>(Credentials::user("me", "s3cret"));
    let options = NatsOptions::new().credentials(credentials);
    lives_on_announced_servers(NatsCluster::new(None, &[users]), options).await;
}

#[cfg(feature = "tls")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_the_cluster_announced_are_used_over_tls() {
    let certificates = Certificates::new();
    let tls = ServerTls::new(&certificates).require_client_certificate();
    let (ca, client) = (certificates.authority().pem().to_owned(), certificates.client().clone());
    let options = NatsOptions::new().tls(move || {
        let (certificate, key) = (client.certificate().pem(), client.key().pem());
        Ok::<_, String>(TlsOptions::new().ca(ca.as_str()).client_certificate(certificate, key))
    });
    lives_on_announced_servers(NatsCluster::new(Some(&tls), &[]), options).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_shuts_down_is_left_for_another_before_it_ends_the_connection() {
    let mut cluster = NatsCluster::new(None, &[]);
    let (first, others) = (cluster.node(0).url(), [cluster.node(1).url(), cluster.node(2).url()].join(","));
    let bus = NatsBus::connect(&first, runtime()).await.unwrap();
    let far = NatsBus::connect(&others, runtime()).await.unwrap();
    let mut subscriber = Subscriber::live(&bus, &plain("Make"), Plain).await;
    assert_arrives(&far, &mut subscriber, 1).await;
    let mut events = watch(&bus);
    cluster.node(0).lame_duck();
    let BusEvent::ConnectionLost { cause, .. } = event(&mut events).await else { panic!("no loss") };
    let expected = format!("not connected to {first}: the server is shutting down (lame duck mode)");
    assert_eq!(cause.to_string(), expected);
    assert!(matches!(event(&mut events).await, BusEvent::Reconnected { .. }));
    assert_arrives(&far, &mut subscriber, 2).await;
    cluster.node(0).wait_for_end();
    assert!(matches!(bus.status(), Status::Connected));
    assert_arrives(&far, &mut subscriber, 3).await;
}

/// Frames that the bus accepts while it leaves arrive like all others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_frame_accepted_while_the_bus_leaves_arrives() {
    const IN_FLIGHT: u32 = 2000;
    let mut cluster = NatsCluster::new(None, &[]);
    let others = [cluster.node(1).url(), cluster.node(2).url()].join(",");
    let all = [cluster.node(0).url(), others.clone()].join(",");
    let far = NatsBus::connect(&others, runtime()).await.unwrap();
    let mut subscriber = Subscriber::live(&far, &plain("Make"), Plain).await;
    for _ in 0..3 {
        let near = NatsBus::connect(&all, runtime()).await.unwrap();
        assert_arrives(&near, &mut subscriber, u32::MAX).await;
        let mut events = watch(&near);
        let (received, has_left) = (Arc::<AtomicU32>::default(), Arc::<AtomicBool>::default());
        let publishing = tokio::spawn({
            let (received, has_left) = (Arc::clone(&received), Arc::clone(&has_left));
            async move {
                let mut sent = 0;
                while !has_left.load(Relaxed) {
                    if sent - received.load(Relaxed) >= IN_FLIGHT {
                        tokio::task::yield_now().await;
                        continue;
                    }
                    sent += 1;
                    drop(offer(&near, &plain("Make"), frame(sent)).await);
                }
                // The last one on a connection that is confirmed.
                publish(&near, &plain("Make"), frame(0)).await.unwrap();
                sent
            }
        });
        let mut arrived = 0;
        let receiving = async {
            loop {
                match subscriber.number().await {
                    0 => return,
                    u32::MAX => {}
                    _ => arrived += 1,
                }
                // Frames are on their way now.
                if arrived == 2 * IN_FLIGHT {
                    cluster.node(0).lame_duck();
                }
                received.store(arrived, Relaxed);
            }
        };
        let leaving = async {
            while !matches!(event(&mut events).await, BusEvent::Reconnected { .. }) {}
            has_left.store(true, Relaxed);
        };
        within(60 * SECOND, "all frames arrive", async { tokio::join!(receiving, leaving) }).await;
        assert_eq!(arrived, publishing.await.unwrap());
        cluster.node(0).kill();
        cluster.node(0).start();
    }
}

/// There is no other server, so the bus works until the server ends the connection.
#[tokio::test]
async fn a_single_server_that_shuts_down_is_used_to_the_end() {
    let mut server = Server::nats(&["lame_duck_duration: \"30s\"", "lame_duck_grace_period: \"2s\""]);
    let bus = NatsBus::connect(&server.url(), runtime()).await.unwrap();
    let mut subscriber = Subscriber::live(&bus, &plain("Make"), Plain).await;
    let mut events = watch(&bus);
    let start = Instant::now();
    server.lame_duck();
    let mut sent = 0;
    // A bus that leaves early cannot publish.
    while start.elapsed() < SECOND {
        sent += 1;
        publish(&bus, &plain("Make"), frame(sent)).await.unwrap();
        assert_eq!(subscriber.number().await, sent);
    }
    let BusEvent::ConnectionLost { .. } = event(&mut events).await else { panic!("no loss") };
    server.wait_for_end();
    server.start();
    assert!(matches!(event(&mut events).await, BusEvent::Reconnected { .. }));
    assert_arrives(&bus, &mut subscriber, 0).await;
}

/// The publisher and the subscriber use two nodes. The connection between these nodes is cut and
/// restored.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_pass_again_after_a_route_of_the_cluster_was_cut() {
    let mut cluster = NatsCluster::new(None, &[]);
    let near = NatsBus::connect(&cluster.node(0).url(), runtime()).await.unwrap();
    let far = NatsBus::connect(&cluster.node(1).url(), runtime()).await.unwrap();
    let mut subscriber = Subscriber::live(&far, &plain("Make"), Plain).await;
    assert_arrives(&near, &mut subscriber, 1).await;
    cluster.cut_route(0, 1);
    publish(&near, &plain("Make"), frame(2)).await.unwrap();
    cluster.restore_route(0, 1);
    assert_arrives(&near, &mut subscriber, 3).await;
    assert!(matches!(near.status(), Status::Connected) && matches!(far.status(), Status::Connected));
}

/// The client and the server are connected to the node that shuts down. Both leave it during a
/// call, a multi call and a stream.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_and_streams_survive_a_server_that_shuts_down() {
    let mut cluster = NatsCluster::new(None, &[]);
    let url = cluster.node(0).url();
    let gate = Arc::<Gate>::default();
    let _server = hats::server(&url, "elm", Arc::clone(&gate)).await;
    let client = hats::client(&url).await;
    let ask = |text: &str| client.call::<String, String>(FIT, &[], text.to_owned());
    let slow = tokio::spawn(ask("slow").timeout(60 * SECOND).into_future());
    let census: MultiCall<String, String> = client.multi_call(CENSUS, &[], "slow".to_owned());
    let mut responses = census.timeout(60 * SECOND).responses(1).await.unwrap();
    let both = gate.reached.acquire_many(2);
    drop(within(20 * SECOND, "both requests run", both).await.unwrap());
    let stream: ClientStream<String, String> = client.open_stream(PARADE, &[]).await.unwrap();
    stream.send("before".to_owned()).await.unwrap();
    assert_eq!(within(20 * SECOND, "a reply arrives", stream.next()).await.unwrap(), "before");
    cluster.node(0).lame_duck();
    cluster.node(0).wait_for_end();
    until(20 * SECOND, "the client reaches the server", async || {
        ask("fez").timeout(SECOND).await.is_ok_and(|response| response == "fez")
    })
    .await;
    gate.open.add_permits(2);
    assert_eq!(within(20 * SECOND, "the call ends", slow).await.unwrap().unwrap(), "slow");
    let response = within(20 * SECOND, "the multi call ends", responses.next()).await;
    assert_eq!(response.unwrap().unwrap().into_message(), "slow");
    stream.send("after".to_owned()).await.unwrap();
    assert_eq!(within(20 * SECOND, "a reply arrives", stream.next()).await.unwrap(), "after");
}
