//! A bus stops with the tokio runtime that it was connected on.

use psrpc::SubscriptionKind::Plain;
use psrpc::bus::{Bus, Delivery, Status};
use psrpc_bus_nats::NatsBus;
use psrpc_servers::Server;
use psrpc_tokio::TokioRuntime;

use crate::support::{SECOND, Subscriber, frame, plain, publish};

fn tokio() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

async fn connect(server: &Server) -> NatsBus {
    NatsBus::connect(&server.url(), TokioRuntime::current().unwrap()).await.unwrap()
}

#[test]
fn a_bus_whose_runtime_has_shut_down_is_stopped() {
    let (server, runtime) = (Server::nats(&[]), tokio());
    let (bus, mut subscriber) = runtime.block_on(async {
        let bus = connect(&server).await;
        let subscriber = Subscriber::live(&bus, &plain("Make"), Plain).await;
        (bus, subscriber)
    });
    drop(runtime);
    tokio().block_on(async {
        assert!(matches!(subscriber.next().await, Delivery::Ended(Some(_))));
        assert!(matches!(bus.status(), Status::Stopped { .. }));
        let error = publish(&bus, &plain("Make"), frame(1)).await.unwrap_err().to_string();
        assert!(error.starts_with("the bus has stopped: its background task ended"), "{error}");
        assert!(matches!(
            Subscriber::new(&bus, &plain("Make"), Plain, 1).next().await,
            Delivery::Ended(Some(_))
        ));
    });
}

#[test]
fn clients_of_a_bus_whose_connection_ended_with_its_runtime_fail_at_once() {
    static HATS: psrpc::Service = psrpc::Service { name: "Hats", methods: &[] };
    let server = Server::nats(&[]);
    let (first, second) = (tokio(), tokio());
    let bus = first.block_on(connect(&server));
    drop(first);
    let error = second.block_on(async {
        let runtime = TokioRuntime::current().unwrap();
        let created = psrpc::Client::new(bus, runtime, &HATS, psrpc::ClientOptions::new());
        tokio::time::timeout(20 * SECOND, created).await.expect("creating the client must fail").unwrap_err()
    });
    assert_eq!(error.code(), &psrpc::ErrorCode::Unavailable, "{error}");
}

#[test]
fn a_tokio_runtime_without_io_is_an_error() {
    let server = Server::nats(&[]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let connected =
        runtime.block_on(async { NatsBus::connect(&server.url(), TokioRuntime::current().unwrap()).await });
    let error = connected.unwrap_err().to_string();
    assert!(error.contains("IO is disabled"), "{error}");
}
