//! The end of the runtime that a bus was given.

use std::time::Duration;

use psrpc_bus_redis::RedisBus;
use psrpc_servers::Server;
use psrpc_testing::StoppableRuntime;
use psrpc_tokio::{
    Client, ClientOptions, ErrorCode, Method, MethodProperties, Routing, Service, TokioRuntime,
};
use tokio::time::timeout;

const LONG: Duration = Duration::from_secs(20);

static HATS: Service = Service {
    name: "Hats",
    methods: &[Method::call(0, "Fit", MethodProperties { routing: Routing::Queue, require_claim: true })],
};

fn runtime() -> TokioRuntime {
    TokioRuntime::current().unwrap()
}

#[tokio::test]
async fn clients_of_a_bus_whose_runtime_has_shut_down_fail_at_once() {
    let server = Server::redis(&[]);
    let mortal = StoppableRuntime::new(runtime());
    let bus = RedisBus::connect(&server.url(), mortal.clone()).await.unwrap();
    let client = Client::new(bus.clone(), runtime(), &HATS, ClientOptions::new()).await.unwrap();
    let call = client.call::<_, String>(&HATS.methods[0], &[], "fez".to_owned()).timeout(LONG * 2);
    let mut call = Box::pin(call.into_future());
    assert!(timeout(Duration::from_millis(50), &mut call).await.is_err(), "nobody answers");
    mortal.stop();
    let error = timeout(LONG, call).await.expect("it fails at once").unwrap_err();
    assert_eq!(error.code(), &ErrorCode::Unavailable);
    assert!(error.text().contains("the bus has stopped"), "{error}");
    let created = timeout(LONG, Client::new(bus, runtime(), &HATS, ClientOptions::new())).await;
    let error = created.expect("it fails at once").unwrap_err();
    assert!(error.text().contains("the bus has stopped"), "{error}");
    let connected = timeout(LONG, RedisBus::connect(&server.url(), mortal)).await;
    let error = connected.expect("it fails at once").unwrap_err();
    assert!(error.to_string().contains("the runtime of the bus has shut down"), "{error}");
}
