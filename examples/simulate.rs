//! A simulation of the studio: three servers, two lost messages and a slow node. It runs in virtual
//! time, and the seed makes it reproducible.
//!
//! Run it with `cargo run --example simulate`, or with another seed: `-- 8`.

use std::time::Duration;

use psrpc::middleware::Retry;
use psrpc::proto::Frame;
use psrpc::{ClientOptions, Error, ServerOptions};
use psrpc_examples::Machine;
use psrpc_examples::studio::{Scene, StudioClient, StudioServer};
use psrpc_simulation::{Fault, World};

fn main() -> Result<(), Error> {
    let seed = std::env::args().nth(1).and_then(|seed| seed.parse().ok()).unwrap_or(7);
    let world = World::new(seed);
    world.run(simulate(&world))?;
    println!("5. {:?} of virtual time have passed", world.elapsed());
    println!("6. the trace hash with seed {seed} is {:016x}", world.trace_hash());
    Ok(())
}

async fn simulate(world: &World) -> Result<(), Error> {
    let mut servers = Vec::new();
    for (name, idle) in [("oak", 0.3), ("elm", 0.9), ("ash", 0.6)] {
        let (node, machine) = (world.node(name), Machine { name: name.into(), idle });
        if name == "elm" {
            println!("1. {name} is the most idle machine, but its node is slow");
            node.slow(Duration::from_millis(300));
        }
        let options = ServerOptions::new();
        servers.push(StudioServer::with_runtime(node.bus(), node.runtime(), machine, options).await?);
    }
    let desk = world.node("desk");
    let options = ClientOptions::new().timeout(Duration::from_secs(1)).interceptor(Retry::new());
    let client = StudioClient::with_runtime(desk.bus(), desk.runtime(), options).await?;

    let castle = Scene { name: "castle".into(), triangles: 4000 };
    let picture = client.render(castle.clone()).await?;
    println!("2. {} renders the castle: its bid was the best to arrive in time", picture.machine);

    world.lose(2, |_, frame| matches!(frame, Frame::Response(_)));
    client.render(castle).await?;
    let lost = world.fault_counts().of(Fault::Drop);
    println!("3. {lost} responses were lost, and the call was retried until one arrived");

    for server in servers {
        server.shutdown().await;
    }
    println!("4. the machines have shut down, after finishing all accepted requests");
    Ok(())
}
