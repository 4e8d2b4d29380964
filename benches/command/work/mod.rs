//! What is done: a unit of each kind of method, with the clients and servers that it takes.

mod service;
mod units;

use std::sync::Arc;

use bytes::Bytes;
use clap::ValueEnum;
use psrpc::bus::Bus;
use psrpc::engine::proto::{MethodProperties, Routing};
use psrpc::{Client, ClientOptions, Method, MethodKind, Runtime, Selection, Server, ServerOptions};
use psrpc_cost::Pair;

use crate::BenchError;
use crate::load::{Load, Workers};
use crate::place::Place;

pub(crate) use service::{SERVICE, UPDATE};
use units::{Engine, Multi, Stream, Unary, Update};

/// What is done.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Work {
    /// Claimed calls of a method whose requests the bus hands to one server: request, bid, grant,
    /// response. On Redis the server takes a lock as well.
    Queue,
    /// Claimed calls of a method whose requests every server sees. There is one server, and the
    /// first bid wins, so that no waiting for better ones is measured.
    Affinity,
    /// Calls of a method with a single server, without a claim: request, response. On Redis the
    /// server takes a lock as well.
    Single,
    /// Calls that each of two servers answers.
    Multi,
    /// Messages of open streams, each with its ack; on each stream one is under way at a time.
    Stream,
    /// Updates, from when one is published to when its one subscriber has it. Each subscriber has a
    /// topic of its own. They have at least 8 bytes.
    Subscription,
    /// Claimed calls through the engines of a client and a server, without a bus, a driver or a
    /// runtime. There is one cell of it, without a floor, whatever else is asked for.
    Engine,
}

/// How many messages of a stream may wait for its handler. A message is acknowledged when it has
/// room there, so that who sends may be thousands ahead of a handler whose thread has no turn; by
/// default the 1,025th is lost, and waited for in vain.
const UNREAD: usize = 1 << 17;

/// The payload of the calls of a [`Pair`].
pub(crate) const ENGINE_SIZE: usize = 66;

impl Work {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Affinity => "affinity",
            Self::Single => "single",
            Self::Multi => "multi",
            Self::Stream => "stream",
            Self::Subscription => "subscription",
            Self::Engine => "engine",
        }
    }

    /// How many servers there are.
    pub(crate) fn servers(self) -> usize {
        if self == Self::Multi { 2 } else { 1 }
    }

    pub(crate) fn method(self) -> &'static Method {
        &SERVICE.methods[self as usize]
    }
}

/// Calls of the engine.
pub(crate) fn engine() -> Box<dyn Load> {
    let claimed = MethodProperties { routing: Routing::Queue, require_claim: true };
    Workers::load(vec![Engine(Pair::new(claimed))], ())
}

/// A client and its servers, each on a bus of its own where there are any.
pub(crate) struct World {
    client: Client,
    servers: Vec<Server>,
}

impl World {
    /// One in which all of this can be done. The methods are registered together, since on NATS a server of a service that
    /// lacks one of the queue's methods takes its requests all the same.
    pub(crate) async fn new(place: &Place, work: &[Work]) -> Result<Self, BenchError> {
        let count = work.iter().map(|work| work.servers()).max().unwrap_or(1);
        let mut buses = place.connect(1 + count).await?.into_iter();
        let bus = buses.next().ok_or("there is no bus")?;
        let client = Client::new(bus, runtime()?, &SERVICE, ClientOptions::new()).await?;
        let mut servers = Vec::new();
        for bus in buses {
            servers.push(serve(bus, work).await?);
        }
        Ok(Self { client, servers })
    }

    /// So many at a time of what is done.
    pub(crate) async fn load(
        &self,
        work: Work,
        concurrency: usize,
        size: usize,
    ) -> Result<Box<dyn Load>, BenchError> {
        let (method, message) = (work.method(), Bytes::from(vec![b'x'; size]));
        let (client, servers) = (|| self.client.clone(), self.servers.clone());
        let workers = 0..concurrency;
        Ok(match work {
            // The engine is not in a world.
            Work::Queue | Work::Affinity | Work::Single | Work::Engine => {
                // Of a method that is not routed by affinity this is the default.
                let selection = Selection::new().accept_first_available(true);
                let unit = |_| Unary {
                    client: client(),
                    method,
                    selection: selection.clone(),
                    message: message.clone(),
                };
                Workers::load(workers.map(unit).collect(), servers)
            }
            Work::Multi => {
                let answers = servers.len();
                let unit = |_| Multi { client: client(), method, message: message.clone(), answers };
                Workers::load(workers.map(unit).collect(), servers)
            }
            Work::Stream => {
                let mut units = Vec::new();
                for _ in workers {
                    let stream = self.client.open_stream(method, &[]).await?;
                    units.push(Stream { client: client(), method, stream, message: message.clone() });
                }
                Workers::load(units, servers)
            }
            Work::Subscription => {
                let mut units = Vec::new();
                for number in workers {
                    let topic = number.to_string();
                    let updates = self.client.subscribe(method, &[&topic]).await?;
                    let server = self.servers[0].clone();
                    units.push(Update { server, method, topic, updates, size, published: 0 });
                }
                Workers::load(units, servers)
            }
        })
    }
}

/// A server that can do everything, and does nothing yet.
pub(crate) fn server(bus: impl Bus) -> Result<Server, BenchError> {
    let options = ServerOptions::new().channel_size(UNREAD);
    Ok(Server::new(bus, runtime()?, service::handlers(), options)?)
}

/// A server of what is done alone, so that nothing else has a part in it.
async fn serve(bus: Arc<dyn Bus>, work: &[Work]) -> Result<Server, BenchError> {
    let server = server(bus)?;
    // Updates are published without being registered.
    let methods =
        work.iter().map(|work| work.method()).filter(|method| method.kind != MethodKind::Subscription);
    server.register(&methods.collect::<Vec<_>>(), &[]).await?;
    Ok(server)
}

fn runtime() -> Result<impl Runtime, BenchError> {
    Ok(psrpc_tokio::default_runtime()?)
}
