//! The end of the runtime that a bus was given.

mod common;

use psrpc_bus_redis::RedisBus;
use psrpc_servers::Server;
use psrpc_testing::StoppableRuntime;
use psrpc_tokio::bus::Delivery;
use psrpc_tokio::proto::Frame;
use psrpc_tokio::{
    Client, ClientOptions, ErrorCode, Method, MethodProperties, Routing, Service, SubscriptionKind,
};
use tokio::time::timeout;

use self::common::{LONG, channel, connect, listen, next, runtime};

static HATS: Service = Service {
    name: "Hats",
    methods: &[Method::call(0, "Fit", MethodProperties { routing: Routing::Queue, require_claim: true })],
};

#[tokio::test]
async fn clients_of_a_bus_whose_runtime_has_shut_down_fail_at_once() {
    let server = Server::redis(&[]);
    let mortal = StoppableRuntime::new(runtime());
    let bus = RedisBus::connect(&server.url(), mortal.clone()).await.unwrap();
    let client = Client::new(bus.clone(), runtime(), &HATS, ClientOptions::new()).await.unwrap();
    let (mut requests, _subscription) =
        listen(&connect(&server).await, &channel("Fit"), SubscriptionKind::Plain).await;
    let call = client.call::<_, String>(&HATS.methods[0], &[], "fez".to_owned()).timeout(LONG * 2);
    let call = tokio::spawn(call.into_future());
    assert!(matches!(next(&mut requests).await, Delivery::Frame(Frame::Request(_))));
    assert!(!call.is_finished(), "nobody answers");
    mortal.stop();
    let error = timeout(LONG, call).await.expect("it fails at once").unwrap().unwrap_err();
    assert_eq!(error.code(), &ErrorCode::Unavailable);
    assert!(error.text().contains("the bus has stopped"), "{error}");
    let created = timeout(LONG, Client::new(bus, runtime(), &HATS, ClientOptions::new())).await;
    let error = created.expect("it fails at once").unwrap_err();
    assert!(error.text().contains("the bus has stopped"), "{error}");
    let connected = timeout(LONG, RedisBus::connect(&server.url(), mortal)).await;
    let error = connected.expect("it fails at once").unwrap_err();
    assert!(error.to_string().contains("the runtime of the bus has shut down"), "{error}");
}
