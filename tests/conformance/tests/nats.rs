//! NATS only: the methods of a service share a subject and its queue.

use std::sync::Arc;

use psrpc::{Client, ClientOptions, Handlers, Reason, Request, Server, ServerOptions};
use psrpc_conformance::bus;
use psrpc_conformance::proto::{Ask, Reply, SHOP_SERVICE};
use psrpc_servers::Server as NatsServer;
use psrpc_tokio::TokioRuntime;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_member_without_the_method_says_so() {
    let nats = NatsServer::nats(&[]);
    let runtime = TokioRuntime::current().unwrap();
    let connect = bus(&nats.url(), Arc::new(runtime.clone()))();
    let [fit, make_hat] = ["Fit", "MakeHatV1"].map(|name| {
        SHOP_SERVICE.methods.iter().find(|method| method.name == name).expect("a method of the shop")
    });
    let handlers = Handlers::new(&SHOP_SERVICE, ()).unary(fit, |_, ask: Request<Ask>| async move {
        Ok(Reply { text: ask.text.clone(), ..Reply::default() })
    });
    let server =
        Server::new(connect().await.unwrap(), runtime.clone(), handlers, ServerOptions::new()).unwrap();
    server.register(&[fit], &[]).await.unwrap();
    let client =
        Client::new(connect().await.unwrap(), runtime, &SHOP_SERVICE, ClientOptions::new()).await.unwrap();

    // The request reaches this server, since both methods are on one subject.
    let error = client.call::<_, Reply>(make_hat, &[], Ask::default()).await.unwrap_err();
    assert_eq!(error.to_string(), "unimplemented: method is not implemented");
    assert_eq!(error.reason(), Some(Reason::Answered));
    assert_eq!(server.counters().get(Reason::Misrouted), 1);
    let ask = Ask { text: "top".into(), ..Ask::default() };
    assert_eq!(client.call::<_, Reply>(fit, &[], ask).await.unwrap().text, "top");
}
