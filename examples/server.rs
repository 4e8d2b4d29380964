//! A machine that serves the studio, in a process of its own: `cargo run --example server -- --bus
//! redis://127.0.0.1:6379`.
//!
//! Start as many as you like, each with a name and an idleness of its own; `client` then calls the
//! most idle. It serves until its input ends (Ctrl-D), finishes what it has accepted, and goes.

use clap::Parser;
use psrpc::Error;
use psrpc_examples::studio::StudioServer;
use psrpc_examples::{BusArgument, Machine, input_ends};

/// A machine that serves the studio.
#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    bus: BusArgument,
    /// What the machine is called.
    #[arg(long, default_value = "oak")]
    name: String,
    /// How idle it is, from 0 to 1.
    #[arg(long, default_value_t = 0.5)]
    idle: f32,
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let Arguments { bus, name, idle } = Arguments::parse();
    let server = StudioServer::new(bus.connect().await?, Machine { name: name.clone(), idle }).await?;
    println!("machine {name} serves the studio until its input ends");
    input_ends().await;
    server.shutdown().await;
    println!("machine {name} has shut down, with nothing left undone");
    Ok(())
}
