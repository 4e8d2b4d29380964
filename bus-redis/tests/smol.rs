//! The bus on smol.

#![cfg(feature = "smol")]

mod common;

use psrpc_bus_redis::{RedisBus, RedisOptions};
use psrpc_servers::Server;
use psrpc_smol::SmolRuntime;
use psrpc_smol::bus::{Bus, Delivery, Inbox, WakeList};

use self::common::{channel, frame};

async fn next(inbox: &mut Inbox) -> Delivery {
    use futures_core::Stream;

    std::future::poll_fn(|cx| std::pin::Pin::new(&mut *inbox).poll_next(cx))
        .await
        .expect("the subscription must not end")
}

/// Runs without any tokio runtime that the bus could use by accident.
#[test]
fn a_bus_on_smol_publishes_subscribes_and_reconnects() {
    let mut server = Server::redis(&[]);
    smol::block_on(async {
        let bus = RedisBus::connect(&server.url(), SmolRuntime).await.unwrap();
        let (sink, mut inbox) = Inbox::new(10);
        let _subscription =
            bus.subscribe(&channel("Fit"), psrpc_smol::SubscriptionKind::Queue, sink, &mut WakeList::new());
        assert!(matches!(next(&mut inbox).await, Delivery::Live));
        psrpc_smol::bus::publish(&bus, channel("Fit"), frame("a hat")).await.unwrap();
        assert!(matches!(next(&mut inbox).await, Delivery::Frame(_)));
        server.kill();
        assert!(matches!(next(&mut inbox).await, Delivery::Interrupted(_)));
        server.start();
        assert!(matches!(next(&mut inbox).await, Delivery::Live));
    });
}

#[test]
fn the_error_of_a_full_server_is_quoted_on_smol() {
    let server = Server::redis(&[]);
    let mut only_client = redis::Client::open(server.url()).unwrap().get_connection().unwrap();
    redis::cmd("CONFIG").arg("SET").arg("maxclients").arg(1).exec(&mut only_client).unwrap();
    let connected = smol::block_on(RedisBus::connect_with(&server.url(), SmolRuntime, RedisOptions::new()));
    let text = connected.expect_err("the server is full").to_string();
    assert!(text.ends_with("ERR max number of clients reached"), "{text}");
}
