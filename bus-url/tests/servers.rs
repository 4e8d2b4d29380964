//! A URL leads to the server that it names.

use psrpc::SubscriptionKind;
use psrpc::bus::{Delivery, Inbox, WakeList};
use psrpc::proto::Channel;
use psrpc_servers::Server;
use psrpc_tokio::TokioRuntime;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_url_connects_to_the_server_that_it_names() {
    for server in [Server::redis(&[]), Server::nats(&[])] {
        let bus = psrpc_bus_url::connect(&server.url(), TokioRuntime::current().unwrap()).await.unwrap();
        let (sink, mut inbox) = Inbox::new(10);
        let channel = Channel::request::<&str>("Hats", "Fit", &[], true);
        let _subscription = bus.subscribe(&channel, SubscriptionKind::Plain, sink, &mut WakeList::new());
        let next =
            std::future::poll_fn(|cx| futures_core::Stream::poll_next(std::pin::Pin::new(&mut inbox), cx));
        assert!(matches!(next.await, Some(Delivery::Live)), "{}", server.url());
    }
}
