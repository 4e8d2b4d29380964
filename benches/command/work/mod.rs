//! What is done: a unit of each kind of method, with the clients and servers that it takes.

mod service;
mod units;

use std::sync::Arc;

use bytes::Bytes;
use clap::ValueEnum;
use psrpc::bus::Bus;
use psrpc::engine::proto::{MethodProperties, Routing};
use psrpc::{Client, ClientOptions, Method, Runtime, Selection, Server, ServerOptions};
use psrpc_cost::Pair;

use crate::Fault;
use crate::load::{Load, Workers};
use crate::place::Place;

pub(crate) use service::{SERVICE, UPDATE};
use units::{Engine, Multi, Stream, Unary, Update};

/// What is done.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Work {
    /// Claimed calls of a method whose requests the bus hands to one server: request, bid, grant, response. On Redis the
    /// server takes a lock as well.
    Queue,
    /// Claimed calls of a method whose requests every server sees. There is one server, and the first bid wins, so that no
    /// waiting for better ones is measured.
    Affinity,
    /// Calls of a method with a single server, without a claim: request, response. On Redis the server takes a lock as well.
    Single,
    /// Calls that each of two servers answers.
    Multi,
    /// Messages of open streams, each with its ack; on each stream one is under way at a time.
    Stream,
    /// Updates, from when one is published to when its one subscriber has it. Each subscriber has a topic of its own.
    Subscription,
    /// Claimed calls through the engines of a client and a server, without a bus, a driver or a runtime. There is one
    /// cell of it, without a floor, whatever else is asked for.
    Engine,
}

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

    fn method(self) -> &'static Method {
        &SERVICE.methods[self as usize]
    }
}

/// Calls of the engine.
pub(crate) fn engine() -> Box<dyn Load> {
    let claimed = MethodProperties { routing: Routing::Queue, require_claim: true };
    Workers::load(vec![Engine(Pair::new(claimed))], ())
}

/// So many at a time of what is done, with clients and servers of their own.
pub(crate) async fn load(
    place: &Place,
    work: Work,
    concurrency: usize,
    size: usize,
) -> Result<Box<dyn Load>, Fault> {
    let (method, message) = (work.method(), Bytes::from(vec![b'x'; size]));
    let mut buses = place.connect(1 + work.servers()).await?;
    let client = client(buses.remove(0)).await?;
    let mut servers = Vec::new();
    for bus in buses {
        servers.push(serve(bus, work).await?);
    }
    let selection = Selection::new().accept_first_available(true);
    let unary =
        || Unary { client: client.clone(), method, selection: selection.clone(), message: message.clone() };
    Ok(match work {
        Work::Multi => {
            let unit =
                || Multi { client: client.clone(), method, message: message.clone(), answers: servers.len() };
            Workers::load((0..concurrency).map(|_| unit()).collect(), servers)
        }
        Work::Stream => {
            let mut units = Vec::new();
            for _ in 0..concurrency {
                let stream = client.open_stream(method, &[]).await?;
                units.push(Stream { stream, message: message.clone() });
            }
            Workers::load(units, servers)
        }
        Work::Subscription => {
            let mut units = Vec::new();
            for number in 0..concurrency {
                let topic = number.to_string();
                let updates = client.subscribe(method, &[&topic]).await?;
                let server = servers[0].clone();
                units.push(Update { server, method, topic, updates, message: message.clone() });
            }
            Workers::load(units, servers)
        }
        _ => Workers::load((0..concurrency).map(|_| unary()).collect(), servers),
    })
}

async fn client(bus: Arc<dyn Bus>) -> Result<Client, Fault> {
    Ok(Client::new(bus, runtime()?, &SERVICE, ClientOptions::new()).await?)
}

/// A server of what is done alone, so that the others have no part in it.
async fn serve(bus: Arc<dyn Bus>, work: Work) -> Result<Server, Fault> {
    let server = Server::new(bus, runtime()?, service::handlers(work.method()), ServerOptions::new())?;
    if work != Work::Subscription {
        server.register(&[work.method()], &[]).await?;
    }
    Ok(server)
}

fn runtime() -> Result<impl Runtime, Fault> {
    Ok(psrpc_tokio::default_runtime()?)
}
