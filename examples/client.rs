//! A caller in a process of its own: `cargo run --example client -- --bus redis://127.0.0.1:6379
//! --scene castle`.
//!
//! It has a scene rendered by the most idle machine of those that `server` started on the same bus.

use clap::Parser;
use psrpc::Error;
use psrpc_examples::BusArgument;
use psrpc_examples::studio::{Scene, StudioClient};

/// Has a scene rendered.
#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    bus: BusArgument,
    /// What the scene is called.
    #[arg(long, default_value = "castle")]
    scene: String,
    /// How large it is.
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
