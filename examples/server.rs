//! A machine of the studio in its own process: `cargo run --example server -- --bus
//! redis://127.0.0.1:6379`.
//!
//! Start several, each with its own name and idleness; `client` then uses the most idle one. The
//! server runs until stdin ends (Ctrl-D), and finishes the requests that it has accepted.

use clap::Parser;
use psrpc::Error;
use psrpc_examples::studio::StudioServer;
use psrpc_examples::{BusArgument, Machine, wait_for_eof};

/// A machine that serves the studio.
#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    bus: BusArgument,
    /// Name of the machine.
    #[arg(long, default_value = "oak")]
    name: String,
    /// Idle share of its capacity, from 0 to 1.
    #[arg(long, default_value_t = 0.5)]
    idle: f32,
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let Arguments { bus, name, idle } = Arguments::parse();
    let server = StudioServer::new(bus.connect().await?, Machine { name: name.clone(), idle }).await?;
    println!("machine {name} serves the studio until stdin ends");
    wait_for_eof().await;
    server.shutdown().await;
    println!("machine {name} has shut down, after finishing all accepted requests");
    Ok(())
}
