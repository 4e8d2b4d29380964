//! Calls between peers with and without compression, over real servers.

use psrpc::bus::Bus;
use psrpc::proto::Compression;
use psrpc::{Client, ClientOptions, Handlers, Request, Server, ServerOptions};
use psrpc_bus_nats::{NatsBus, NatsOptions};
use psrpc_bus_redis::{RedisBus, RedisOptions};
use psrpc_conformance::proto::{Ask, Reply, SHOP_SERVICE};
use psrpc_servers::Server as BusServer;
use psrpc_tokio::TokioRuntime;

/// Calls from a client on one bus to a server on the other, and checks the echo.
async fn call(client_bus: &(impl Bus + Clone), server_bus: &(impl Bus + Clone)) {
    let runtime = TokioRuntime::current().unwrap();
    let fit = SHOP_SERVICE.methods.iter().find(|method| method.name == "Fit").expect("a method of the shop");
    let handlers = Handlers::new(&SHOP_SERVICE, ()).unary(fit, |_, ask: Request<Ask>| async move {
        Ok(Reply { text: ask.text.clone(), ..Reply::default() })
    });
    let server = Server::new(server_bus.clone(), runtime.clone(), handlers, ServerOptions::new()).unwrap();
    server.register(&[fit], &[]).await.unwrap();
    let client = Client::new(client_bus.clone(), runtime, &SHOP_SERVICE, ClientOptions::new()).await.unwrap();
    let text = "a hat of wool, ".repeat(100 * 1024 / 15);
    let reply: Reply = client.call(fit, &[], Ask { text: text.clone(), ..Ask::default() }).await.unwrap();
    assert_eq!(reply.text, text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_redis_who_compresses_and_who_does_not_call_each_other() {
    let server = BusServer::redis(&[]);
    let connect = async |options| {
        let runtime = TokioRuntime::current().unwrap();
        RedisBus::connect_with(&server.url(), runtime, options).await.unwrap()
    };
    let compressing = connect(RedisOptions::new().compression(Compression::DEFAULT)).await;
    let plain = connect(RedisOptions::new()).await;
    call(&compressing, &plain).await;
    call(&plain, &compressing).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_nats_who_compresses_and_who_does_not_call_each_other() {
    let server = BusServer::nats(&[]);
    let connect = async |options| {
        let runtime = TokioRuntime::current().unwrap();
        NatsBus::connect_with(&server.url(), runtime, options).await.unwrap()
    };
    let compressing = connect(NatsOptions::new().compression(Compression::DEFAULT)).await;
    let plain = connect(NatsOptions::new()).await;
    call(&compressing, &plain).await;
    call(&plain, &compressing).await;
}
