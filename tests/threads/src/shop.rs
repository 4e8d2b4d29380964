//! The service of the scenarios.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use psrpc::bus::Bus;
use psrpc::{
    Client, ClientOptions, Handlers, Method, MethodProperties, Request, Routing, Runtime, Server,
    ServerOptions, ServerStream, Service,
};
use shuttle::future::block_on;

use crate::Threads;

/// The methods of the service. Each takes a number and returns one.
pub struct Shop;

impl Shop {
    /// A number without a successor: the handler that receives it never ends.
    pub const NO_NUMBER: u32 = u32::MAX;
    /// Returns the next number.
    pub const NEXT: &Method = &METHODS[0];
    /// Returns the next number, from the server that the client selects.
    pub const PICK: &Method = &METHODS[1];
    /// Returns the next number, from each server.
    pub const CENSUS: &Method = &METHODS[2];
    /// A stream that echoes each number.
    pub const ECHO: &Method = &METHODS[3];
    /// Updates.
    pub const NEWS: &Method = &METHODS[4];
}

static METHODS: [Method; 5] = [
    Method::call(0, "Next", MethodProperties { routing: Routing::Queue, require_claim: true }),
    Method::call(1, "Pick", MethodProperties { routing: Routing::Affinity, require_claim: true }),
    Method::call(2, "Census", MethodProperties { routing: Routing::Multi, require_claim: false }),
    Method::stream(3, "Echo", MethodProperties { routing: Routing::Queue, require_claim: true }),
    Method::subscription(4, "News", MethodProperties { routing: Routing::Multi, require_claim: false })
        .messages("Unit", "Number"),
];

static SHOP: Service = Service { name: "Shop", methods: &METHODS };

/// Creates a client and waits until it is ready.
pub fn client(bus: impl Bus, threads: &Threads) -> Client {
    client_on(bus, threads.clone())
}

/// Creates a client on the given runtime and waits until it is ready.
pub fn client_on(bus: impl Bus, runtime: impl Runtime) -> Client {
    block_on(Client::new(bus, runtime, &SHOP, ClientOptions::new()))
        .expect("the bus accepts the subscriptions")
}

/// Creates a server of all methods. Also returns the number of calls whose handlers have started.
pub fn shop(bus: impl Bus, threads: &Threads) -> (Server, Arc<AtomicUsize>) {
    shop_on(bus, threads.clone())
}

/// Creates a server of all methods on the given runtime. Also returns the number of calls whose
/// handlers have started.
pub fn shop_on(bus: impl Bus, runtime: impl Runtime) -> (Server, Arc<AtomicUsize>) {
    let ran = Arc::new(AtomicUsize::new(0));
    let next = |ran: Arc<Arc<AtomicUsize>>, number: Request<u32>| async move {
        ran.fetch_add(1, Ordering::Relaxed);
        match number.into_message() {
            Shop::NO_NUMBER => std::future::pending().await,
            number => Ok(number + 1),
        }
    };
    let handlers = Handlers::new(&SHOP, Arc::clone(&ran))
        .unary(Shop::NEXT, next)
        .unary(Shop::PICK, next)
        .unary(Shop::CENSUS, next)
        .stream(Shop::ECHO, |_, stream: ServerStream<u32, u32>| async move {
            while let Some(number) = stream.next().await {
                // The send fails if the other side has ended or time has passed. Stop then: a later
                // number must not arrive without this one.
                if stream.send(number).await.is_err() {
                    break;
                }
            }
            Ok(())
        });
    let server = Server::new(bus, runtime, handlers, ServerOptions::new()).expect("the options are valid");
    block_on(server.register(&[Shop::NEXT, Shop::PICK, Shop::CENSUS, Shop::ECHO], &[]))
        .expect("the bus accepts the subscriptions");
    (server, ran)
}
