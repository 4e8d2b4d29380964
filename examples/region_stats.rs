//! Statistics by region: whoever asks collects the answers of all servers of a region, and whoever
//! watches a region is told of every change.
//!
//! `cargo run --example region_stats` plays it through in one process. Over Redis or NATS, each
//! line in a terminal of its own; in the first, Return opens a room, until Ctrl-D:
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
use psrpc_examples::{BusArgument, input};

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

/// A node and the server that answers for it, in its region.
struct Serving {
    node: Node,
    server: RegionsServer,
    region: String,
}

impl Serving {
    async fn start(bus: Arc<dyn Bus>, name: &str, region: &str) -> Result<Self, Error> {
        let node = Node { name: name.to_owned(), rooms: Arc::default() };
        let server = RegionsServer::new(bus, node.clone()).await?;
        // A method with topics is served from here on, and only for this one. A server can have any
        // number of them.
        server.register_collect_topic(region).await?;
        println!("{name} serves {region}");
        Ok(Self { node, server, region: region.to_owned() })
    }

    async fn open_room(&self) -> Result<(), Error> {
        self.node.rooms.fetch_add(1, Ordering::Relaxed);
        // Whoever watches this region hears of it. That nobody does is no error.
        self.server.publish_changes(&self.region, &self.node.stats()).await?;
        println!("{} has opened a room", self.node.name);
        Ok(())
    }
}

/// Who knows how many servers there are says so, and has the answers as soon as the last has come.
/// Otherwise they are collected for the given time.
async fn collect(client: &RegionsClient, region: &str, servers: Option<usize>) -> Result<(), Error> {
    let call = client.collect(region, ()).timeout(Duration::from_millis(500));
    let mut answers = match servers {
        Some(servers) => call.answers(servers).await?,
        None => call.await?,
    };
    let mut rooms = BTreeMap::new();
    while let Some(answer) = answers.next().await {
        // One server's error is no reason to have nothing from the others.
        match answer {
            Ok(stats) => {
                rooms.insert(stats.server.clone(), stats.rooms);
            }
            Err(error) => println!("{region}: {error}"),
        }
    }
    println!("rooms in {region}: {rooms:?}");
    Ok(())
}

/// Tells of a change of a region.
fn tell(region: &str, change: Result<Stats, Error>) {
    match change {
        Ok(stats) => println!("{region} hears: {} has opened room {}", stats.server, stats.rooms),
        // As after a lost connection. The subscription goes on.
        Err(error) => println!("{region} may have missed something: {error}"),
    }
}

/// Tells of the next change of a region.
async fn tell_next(region: &str, changes: &mut Subscription<Stats>) {
    tell(region, changes.next().await.expect("the client is not closed"));
}

/// Plays it through in one process.
async fn play(bus: Arc<dyn Bus>) -> Result<(), Error> {
    let paris = Serving::start(bus.clone(), "paris", "europe").await?;
    let milan = Serving::start(bus.clone(), "milan", "europe").await?;
    let tokyo = Serving::start(bus.clone(), "tokyo", "asia").await?;

    let client = RegionsClient::new(bus).await?;
    let mut europe = client.subscribe_changes("europe").await?;
    let mut asia = client.subscribe_changes("asia").await?;

    paris.open_room().await?;
    tell_next("europe", &mut europe).await;
    milan.open_room().await?;
    tell_next("europe", &mut europe).await;
    tokyo.open_room().await?;
    // Not of what happened in Europe.
    tell_next("asia", &mut asia).await;

    collect(&client, "europe", Some(2)).await?;
    collect(&client, "asia", None).await?;
    collect(&client, "atlantis", None).await?;

    // A server can leave a region and go on elsewhere.
    milan.server.deregister_collect_topic("europe").await?;
    collect(&client, "europe", None).await?;
    for serving in [paris, milan, tokyo] {
        serving.server.shutdown().await;
    }
    println!("the servers have shut down");
    Ok(())
}

/// Statistics by region, played through in one process unless it is told which part to be.
#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    bus: BusArgument,
    #[command(subcommand)]
    part: Option<Part>,
}

#[derive(Subcommand)]
enum Part {
    /// A server, which opens a room with every line of its input, until that ends.
    Serve { name: String, region: String },
    /// Tells what changes in a region, until Ctrl-C.
    Watch { region: String },
    /// Asks all servers of a region.
    Collect {
        region: String,
        /// How many there are, if you know.
        #[arg(long)]
        servers: Option<usize>,
    },
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let Arguments { bus, part } = Arguments::parse();
    let bus = bus.connect().await?;
    match part {
        None => play(bus).await?,
        Some(Part::Serve { name, region }) => {
            let serving = Serving::start(bus, &name, &region).await?;
            let mut input = input();
            while input.recv().await.is_some() {
                serving.open_room().await?;
            }
            serving.server.shutdown().await;
            println!("{name} has shut down");
        }
        Some(Part::Watch { region }) => {
            let mut changes = RegionsClient::new(bus).await?.subscribe_changes(&region).await?;
            println!("watching {region}");
            while let Some(change) = changes.next().await {
                tell(&region, change);
            }
        }
        Some(Part::Collect { region, servers }) => {
            collect(&RegionsClient::new(bus).await?, &region, servers).await?;
        }
    }
    Ok(())
}
