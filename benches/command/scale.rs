//! `scale`: how the cost of a call grows with servers, clients, topics and calls in flight.

use std::mem;

use psrpc::engine::Selection;
use psrpc::engine::proto::{MethodProperties, Routing};
use serde_json::{Value, json};

use crate::BenchError;
use crate::fleet::{Cost, Fleet};
use crate::measure::{now, resident};
use crate::{runtime, topics};

const QUEUE: MethodProperties = MethodProperties { routing: Routing::Queue, require_claim: true };
const AFFINITY: MethodProperties = MethodProperties { routing: Routing::Affinity, require_claim: true };
const SINGLE: MethodProperties = MethodProperties { routing: Routing::Queue, require_claim: false };

/// The number of measured calls in small fleets.
const CALLS: usize = 2000;

/// Measure how the cost of a call grows. Runs engines of up to 1,000 servers and 10,000 clients in
/// virtual time, connected by a bus that delivers every frame at once. Prints the frames published
/// and delivered per call and the time spent in the engines, without encoding, drivers or a bus.
/// Only the memory of a topic includes the driver of its server. Reading the clock adds about 50 ns
/// to each measurement, so small figures are slightly too large.
#[derive(clap::Args)]
pub(crate) struct Scale {
    /// Print a JSON summary in the last line.
    #[arg(long)]
    json: bool,
}

impl Scale {
    pub(crate) fn run(&self) -> Result<bool, BenchError> {
        let tables = json!({
            // Measured first, before freed memory can be reused.
            "memory": memory()?,
            "servers": servers(),
            "clients": clients(),
            "topics": topics(),
            "in_flight": in_flight(),
        });
        if self.json {
            println!("{tables}");
        }
        Ok(true)
    }
}

/// Varies the number of servers, all of which bid for each call.
fn servers() -> Vec<Value> {
    println!(
        "calls of an affinity method, which wait for all bids; of a queue method; and of a single_server method"
    );
    println!("method   servers | published delivered | client us/call  each server us/call");
    let cells = [1, 10, 100, 1000].map(|servers| ("affinity", AFFINITY, servers));
    let few = [("queue", QUEUE, 1), ("queue", QUEUE, 1000), ("single", SINGLE, 1)];
    let mut rows = Vec::new();
    for (name, properties, servers) in cells.into_iter().chain(few) {
        let mut fleet = Fleet::new(properties, 1, servers, 0);
        fleet.register();
        let calls = CALLS.div_ceil(if name == "affinity" { servers } else { 1 }).max(50);
        fleet.calls(calls, &Selection::default());
        let Cost { published, delivered, clients, servers: server_time } =
            fleet.calls(calls, &Selection::default());
        let each = |count: f64| count / calls as f64;
        let (published, delivered) = (each(published as f64), each(delivered as f64));
        let (client_us, server_us) =
            (each(clients.as_secs_f64() * 1e6), each(server_time.as_secs_f64() * 1e6) / servers as f64);
        println!(
            "{name:<8} {servers:>7} | {published:>9.0} {delivered:>9.0} | {client_us:>14.2} {server_us:>20.3}"
        );
        rows.push(json!({
            "method": name,
            "servers": servers,
            "published": published,
            "delivered": delivered,
            "client_us": client_us,
            "server_us": server_us,
        }));
    }
    rows
}

/// Varies the number of clients, which take turns.
fn clients() -> Vec<Value> {
    println!("\ncalls of a queue method, from clients that take turns");
    println!("clients servers | client us/call  servers us/call");
    let mut rows = Vec::new();
    for clients in [1, 100, 10_000] {
        let servers = 2;
        let mut fleet = Fleet::new(QUEUE, clients, servers, 0);
        fleet.register();
        let calls = CALLS.max(clients);
        let (client_us, server_us) = each_call(&mut fleet, calls);
        println!("{clients:>7} {servers:>7} | {client_us:>14.2} {server_us:>16.2}");
        rows.push(json!({ "clients": clients, "client_us": client_us, "server_us": server_us }));
    }
    rows
}

/// Measures the memory of registered topics and of calls in flight. Measured objects are leaked, so
/// that later ones cannot reuse their memory.
fn memory() -> Result<Value, BenchError> {
    const MANY: usize = 100_000;
    let each = |before| Ok::<_, BenchError>((resident_bytes()? - before) / MANY as f64);
    let before = resident_bytes()?;
    let server = runtime(1)?.block_on(topics::server(MANY))?;
    let topic = each(before)?;
    mem::forget(server);
    let [alone, both] = [0, 1].map(|servers| {
        let mut fleet = Fleet::new(QUEUE, 1, servers, 0);
        fleet.register();
        let before = resident_bytes()?;
        fleet.hold(MANY);
        mem::forget(fleet);
        each(before)
    });
    let client = alone?;
    let server = both? - client;
    println!("memory in bytes, the mean of {MANY}");
    println!("{topic:>8.0} a registered topic, in a server without its bus");
    println!("{client:>8.0} a call that waits for bids, in the engine of the client");
    println!("{server:>8.0} a request in flight, in the engine of the server\n");
    Ok(json!({ "topic": topic, "client": client, "server": server }))
}

/// Varies the number of topics of one server.
fn topics() -> Vec<Value> {
    println!("\ncalls of a queue method with topics, all registered by one server");
    println!(" topics | us to register | client us/call  server us/call");
    let mut rows = Vec::new();
    for topics in [1000, 10_000, 100_000] {
        let mut fleet = Fleet::new(QUEUE, 1, 1, topics);
        let started = now();
        fleet.register();
        let register_us = micros(started.elapsed(), topics);
        let (client_us, server_us) = each_call(&mut fleet, CALLS);
        println!("{topics:>7} | {register_us:>14.2} | {client_us:>14.2} {server_us:>15.2}");
        rows.push(json!({
            "topics": topics,
            "register_us": register_us,
            "client_us": client_us,
            "server_us": server_us,
        }));
    }
    rows
}

/// Varies the number of calls in flight.
fn in_flight() -> Vec<Value> {
    println!("\ncalls of a queue method, while others are in flight at the same client and server");
    println!("in flight | client us/call  server us/call");
    let mut rows = Vec::new();
    for others in [100, 10_000, 100_000] {
        let mut fleet = Fleet::new(QUEUE, 1, 1, 0);
        fleet.register();
        fleet.hold(others);
        let (client_us, server_us) = each_call(&mut fleet, CALLS);
        println!("{others:>9} | {client_us:>14.2} {server_us:>15.2}");
        rows.push(json!({ "in_flight": others, "client_us": client_us, "server_us": server_us }));
    }
    rows
}

/// Returns the time spent in clients and servers per call. Makes as many calls before, to warm up.
fn each_call(fleet: &mut Fleet, calls: usize) -> (f64, f64) {
    fleet.calls(calls, &Selection::default());
    let cost = fleet.calls(calls, &Selection::default());
    (micros(cost.clients, calls), micros(cost.servers, calls))
}

fn micros(time: std::time::Duration, calls: usize) -> f64 {
    time.as_secs_f64() * 1e6 / calls as f64
}

fn resident_bytes() -> Result<f64, BenchError> {
    Ok(resident().ok_or("this system does not report the resident memory")? * 1024.0 * 1024.0)
}
