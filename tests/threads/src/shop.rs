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

/// The methods of the service. Each takes a number and gives one.
pub struct Shop;

impl Shop {
    /// A number without a next: whoever looks for it does not end by itself.
    pub const NO_NUMBER: u32 = u32::MAX;
    /// Gives the next number.
    pub const NEXT: &Method = &METHODS[0];
    /// Gives the next number, from the server that the client selects.
    pub const PICK: &Method = &METHODS[1];
    /// Gives the next number, from each server.
    pub const CENSUS: &Method = &METHODS[2];
    /// A stream on which each number comes back.
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

/// A client that is ready.
pub fn client(bus: impl Bus, threads: &Threads) -> Client {
    client_on(bus, threads.clone())
}

/// A client that is ready, on a runtime of the scenario's own.
pub fn client_on(bus: impl Bus, runtime: impl Runtime) -> Client {
    block_on(Client::new(bus, runtime, &SHOP, ClientOptions::new())).expect("it is ready")
}

/// A server of all methods, and how many of its handlers ran.
pub fn shop(bus: impl Bus, threads: &Threads) -> (Server, Arc<AtomicUsize>) {
    shop_on(bus, threads.clone())
}

/// The same on a runtime of the scenario's own.
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
                // The other side may have gone meanwhile, or time has passed; what comes later must
                // not arrive without this.
                if stream.send(number).await.is_err() {
                    break;
                }
            }
            Ok(())
        });
    let server = Server::new(bus, runtime, handlers, ServerOptions::new()).expect("its id can be carried");
    block_on(server.register(&[Shop::NEXT, Shop::PICK, Shop::CENSUS, Shop::ECHO], &[])).expect("it serves");
    (server, ran)
}
