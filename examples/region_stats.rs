//! Statistics by region. A client collects responses from all servers of a region, and watchers
//! receive every change.
//!
//! `cargo run --example region_stats` runs everything in one process. To use Redis or NATS, run
//! each line in its own terminal. In the first, press Return to open a room and Ctrl-D to stop:
//!
//! ```text
//! cargo run --example region_stats -- --bus nats://127.0.0.1:4222 serve paris europe
//! cargo run --example region_stats -- --bus nats://127.0.0.1:4222 watch europe
//! cargo run --example region_stats -- --bus nats://127.0.0.1:4222 collect europe
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use clap::{Parser, Subcommand};
use psrpc::bus::Bus;
use psrpc::{Error, Request, Subscription};
use psrpc_examples::{BusArgument, stdin_lines};

use regions::{Regions, RegionsClient, RegionsServer, Stats};

mod regions {
    psrpc::include_proto!("regions.v1");
}

#[derive(Clone)]
struct Node {
    name: String,
    rooms: Arc<AtomicU32>,
}

impl Node {
    fn stats(&self) -> Stats {
        Stats { server: self.name.clone(), rooms: self.rooms.load(Ordering::Relaxed) }
    }
}

impl Regions for Node {
    async fn collect(&self, _: Request<()>) -> Result<Stats, Error> {
        Ok(self.stats())
    }
}

/// A node with its server, in one region.
struct RegionServer {
    node: Node,
    server: RegionsServer,
    region: String,
}

impl RegionServer {
    async fn start(bus: Arc<dyn Bus>, name: &str, region: &str) -> Result<Self, Error> {
        let node = Node { name: name.to_owned(), rooms: Arc::default() };
        let server = RegionsServer::new(bus, node.clone()).await?;
        // A method with topics is served only for registered topics. A server can register any
        // number of them.
        server.register_collect_topic(region).await?;
        println!("{name} serves {region}");
        Ok(Self { node, server, region: region.to_owned() })
    }

    async fn open_room(&self) -> Result<(), Error> {
        self.node.rooms.fetch_add(1, Ordering::Relaxed);
        // Every watcher of this region receives the change. Having no watchers is not an error.
        self.server.publish_changes(&self.region, &self.node.stats()).await?;
        println!("{} opened a room", self.node.name);
        Ok(())
    }
}

/// Collects the responses of a region and prints them. If the number of servers is known, the call
/// ends with the last response; otherwise it lasts until its timeout.
async fn collect(client: &RegionsClient, region: &str, servers: Option<usize>) -> Result<(), Error> {
    let call = client.collect(region, ()).timeout(Duration::from_millis(500));
    let mut responses = match servers {
        Some(servers) => call.responses(servers).await?,
        None => call.await?,
    };
    let mut rooms = BTreeMap::new();
    while let Some(response) = responses.next().await {
        // An error of one server does not affect the other responses.
        match response {
            Ok(stats) => {
                rooms.insert(stats.server.clone(), stats.rooms);
            }
            Err(error) => println!("{region}: {error}"),
        }
    }
    println!("rooms in {region}: {rooms:?}");
    Ok(())
}

/// Prints a change.
fn print_change(region: &str, change: Result<Stats, Error>) {
    match change {
        Ok(stats) => println!("{region}: {} opened room {}", stats.server, stats.rooms),
        // For example, after a lost connection. The subscription continues.
        Err(error) => println!("{region}: changes may have been missed: {error}"),
    }
}

/// Prints the next change.
async fn print_next_change(region: &str, changes: &mut Subscription<Stats>) {
    print_change(region, changes.next().await.expect("the client is not closed"));
}

/// Runs servers and a client in one process.
async fn run_all(bus: Arc<dyn Bus>) -> Result<(), Error> {
    let paris = RegionServer::start(bus.clone(), "paris", "europe").await?;
    let milan = RegionServer::start(bus.clone(), "milan", "europe").await?;
    let tokyo = RegionServer::start(bus.clone(), "tokyo", "asia").await?;

    let client = RegionsClient::new(bus).await?;
    let mut europe = client.subscribe_changes("europe").await?;
    let mut asia = client.subscribe_changes("asia").await?;

    paris.open_room().await?;
    print_next_change("europe", &mut europe).await;
    milan.open_room().await?;
    print_next_change("europe", &mut europe).await;
    tokyo.open_room().await?;
    // The watcher of Asia receives no changes of Europe.
    print_next_change("asia", &mut asia).await;

    collect(&client, "europe", Some(2)).await?;
    collect(&client, "asia", None).await?;
    collect(&client, "atlantis", None).await?;

    // A server can leave a region and keep serving others.
    milan.server.deregister_collect_topic("europe").await?;
    collect(&client, "europe", None).await?;
    for region_server in [paris, milan, tokyo] {
        region_server.server.shutdown().await;
    }
    println!("the servers have shut down");
    Ok(())
}

/// Statistics by region. Runs everything in one process without a subcommand.
#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    bus: BusArgument,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Runs a server until stdin ends. Each line of stdin opens a room.
    Serve { name: String, region: String },
    /// Prints the changes of a region until Ctrl-C.
    Watch { region: String },
    /// Collects the statistics of a region.
    Collect {
        region: String,
        /// Number of servers, if known.
        #[arg(long)]
        servers: Option<usize>,
    },
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let Arguments { bus, command } = Arguments::parse();
    let bus = bus.connect().await?;
    match command {
        None => run_all(bus).await?,
        Some(Command::Serve { name, region }) => {
            let region_server = RegionServer::start(bus, &name, &region).await?;
            let mut lines = stdin_lines();
            while lines.recv().await.is_some() {
                region_server.open_room().await?;
            }
            region_server.server.shutdown().await;
            println!("{name} has shut down");
        }
        Some(Command::Watch { region }) => {
            let mut changes = RegionsClient::new(bus).await?.subscribe_changes(&region).await?;
            println!("watching {region}");
            while let Some(change) = changes.next().await {
                print_change(&region, change);
            }
        }
        Some(Command::Collect { region, servers }) => {
            collect(&RegionsClient::new(bus).await?, &region, servers).await?;
        }
    }
    Ok(())
}
