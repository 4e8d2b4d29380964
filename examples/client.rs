//! A client in its own process: `cargo run --example client -- --bus redis://127.0.0.1:6379 --scene
//! castle`.
//!
//! Renders a scene on the most idle of the machines that `server` runs on the same bus.

use clap::Parser;
use psrpc::Error;
use psrpc_examples::BusArgument;
use psrpc_examples::studio::{Scene, StudioClient};

/// Renders a scene.
#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    bus: BusArgument,
    /// Name of the scene.
    #[arg(long, default_value = "castle")]
    scene: String,
    /// Size of the scene in triangles.
    #[arg(long, default_value_t = 4000)]
    triangles: u32,
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let Arguments { bus, scene: name, triangles } = Arguments::parse();
    let client = StudioClient::new(bus.connect().await?).await?;
    let picture = client.render(Scene { name: name.clone(), triangles }).await?;
    println!("{} renders the {name}", picture.machine);
    Ok(())
}
