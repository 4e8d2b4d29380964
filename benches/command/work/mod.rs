//! Kinds of work, one for each kind of method, and the clients and servers that they need.

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

/// A kind of work.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Work {
    /// Claimed calls of a queue method: request, bid, grant, response. On Redis the server also
    /// takes a lock.
    Queue,
    /// Claimed calls of an affinity method. There is one server, and the first bid wins, so the
    /// figures contain no waiting for better bids.
    Affinity,
    /// Calls of a single_server method, without a claim: request, response. On Redis the server
    /// also takes a lock.
    Single,
    /// Multi calls with two servers.
    Multi,
    /// Messages of open streams, each with its ack. One message at a time on each stream.
    Stream,
    /// Updates, from publishing to receipt by the one subscriber. Each subscriber has its own
    /// topic. Updates have at least 8 bytes.
    Subscription,
    /// Claimed calls through the engines of a client and a server, without a bus, a driver or a
    /// runtime. Always one cell, without a floor.
    Engine,
}

/// The capacity of a stream for unread messages. A message is acknowledged once it is queued, so
/// senders may be thousands of messages ahead of a handler whose thread is busy. With the default
/// capacity, the 1,025th message would be lost and its send would time out.
const UNREAD: usize = 1 << 17;

/// The payload size of the calls of a [`Pair`].
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

    /// Returns the number of servers.
    pub(crate) fn servers(self) -> usize {
        if self == Self::Multi { 2 } else { 1 }
    }

    pub(crate) fn method(self) -> &'static Method {
        &SERVICE.methods[self as usize]
    }
}

/// Creates the load of the engine.
pub(crate) fn engine() -> Box<dyn Load> {
    let claimed = MethodProperties { routing: Routing::Queue, require_claim: true };
    Workers::load(vec![Engine(Pair::new(claimed))], ())
}

/// A client and its servers, each on its own bus, except in process.
pub(crate) struct World {
    client: Client,
    servers: Vec<Server>,
}

impl World {
    /// Creates a client and servers for these kinds of work. Every server registers the methods of
    /// all these kinds, since on NATS a server that lacks a queue method still receives its
    /// requests.
    pub(crate) async fn new(place: &Place, work: &[Work]) -> Result<Self, BenchError> {
        let count = work.iter().map(|work| work.servers()).max().unwrap_or(1);
        let mut buses = place.connect(1 + count).await?.into_iter();
        let bus = buses.next().ok_or("no bus")?;
        let client = Client::new(bus, runtime()?, &SERVICE, ClientOptions::new()).await?;
        let mut servers = Vec::new();
        for bus in buses {
            servers.push(serve(bus, work).await?);
        }
        Ok(Self { client, servers })
    }

    /// Creates a load of `concurrency` workers.
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
            // `Engine` does not reach this.
            Work::Queue | Work::Affinity | Work::Single | Work::Engine => {
                // The default for methods without affinity.
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
                let responses = servers.len();
                let unit = |_| Multi { client: client(), method, message: message.clone(), responses };
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

/// Creates a server that has all handlers and serves no method yet.
pub(crate) fn server(bus: impl Bus) -> Result<Server, BenchError> {
    let options = ServerOptions::new().queued_frames(UNREAD).unread_per_stream(UNREAD);
    Ok(Server::new(bus, runtime()?, service::handlers(), options)?)
}

/// Creates a server of these methods only, so that others do not affect the figures.
async fn serve(bus: Arc<dyn Bus>, work: &[Work]) -> Result<Server, BenchError> {
    let server = server(bus)?;
    // Publishing needs no registration.
    let methods =
        work.iter().map(|work| work.method()).filter(|method| method.kind != MethodKind::Subscription);
    server.register(&methods.collect::<Vec<_>>(), &[]).await?;
    Ok(server)
}

fn runtime() -> Result<impl Runtime, BenchError> {
    Ok(psrpc_tokio::default_runtime()?)
}
