//! A bus stops with its runtime.

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

use self::common::{LONG, channel, connect, next, runtime, subscribe_live};

static HATS: Service = Service {
    name: "Hats",
    methods: &[Method::call(0, "Fit", MethodProperties { routing: Routing::Queue, require_claim: true })],
};

#[tokio::test]
async fn clients_of_a_bus_whose_runtime_has_shut_down_fail_at_once() {
    let server = Server::redis(&[]);
    let stoppable = StoppableRuntime::new(runtime());
    let bus = RedisBus::connect(&server.url(), stoppable.clone()).await.unwrap();
    let client = Client::new(bus.clone(), runtime(), &HATS, ClientOptions::new()).await.unwrap();
    let (mut requests, _subscription) =
        subscribe_live(&connect(&server).await, &channel("Fit"), SubscriptionKind::Plain).await;
    let call = client.call::<_, String>(&HATS.methods[0], &[], "fez".to_owned()).timeout(LONG * 2);
    let call = tokio::spawn(call.into_future());
    assert!(matches!(next(&mut requests).await, Delivery::Frame(Frame::Request(_))));
    assert!(!call.is_finished(), "no server responds");
    stoppable.stop();
    let error = timeout(LONG, call).await.expect("the call must fail").unwrap().unwrap_err();
    assert_eq!(error.code(), &ErrorCode::Unavailable);
    assert!(error.text().contains("the bus has stopped"), "{error}");
    let created = timeout(LONG, Client::new(bus, runtime(), &HATS, ClientOptions::new())).await;
    let error = created.expect("creating the client must fail").unwrap_err();
    assert!(error.text().contains("the bus has stopped"), "{error}");
    let connected = timeout(LONG, RedisBus::connect(&server.url(), stoppable)).await;
    let error = connected.expect("connecting must fail").unwrap_err();
    assert!(error.to_string().contains("the runtime of the bus has shut down"), "{error}");
}
