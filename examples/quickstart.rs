//! A tour of PSRPC: three servers bid for a call and the best one handles it; all of them respond
//! to a multi call; a stream; a subscription; and errors.
//!
//! Run it with `cargo run --example quickstart`, or over a real bus with
//! `cargo run --example quickstart --features buses -- --bus redis://127.0.0.1:6379`.

use std::time::Duration;

use psrpc::{Error, Selection};
use psrpc_quickstart::Machine;
use psrpc_quickstart::studio::{Scene, Stroke, StudioClient, StudioServer};
use tokio::time::timeout;

#[tokio::main]
async fn main() -> Result<(), Error> {
    let bus = psrpc_quickstart::bus().await?;

    let mut servers = Vec::new();
    for (name, idle) in [("oak", 0.3), ("elm", 0.9), ("ash", 0.6)] {
        servers.push(StudioServer::new(bus.clone(), Machine { name: name.into(), idle }).await?);
        println!("1. machine {name} serves the studio; it is {:.0} % idle", idle * 100.0);
    }
    let client = StudioClient::new(bus).await?;

    // All three servers bid with their affinity, and the client grants the best bid.
    let castle = Scene { name: "castle".into(), triangles: 4000 };
    let picture = client.render(castle.clone()).await?;
    println!("2. every machine bid for the castle, and {} renders it: the most idle", picture.machine);

    // Queue-routed: the bus hands the request to one of the servers, without bids to compare.
    let size = client.estimate(castle.clone()).await?;
    println!("3. any machine can estimate: the picture will have {} bytes", size.bytes);

    // A multi call: every server responds. It ends after three responses; without that number it
    // would last until its timeout.
    let mut responses = client.roll_call(()).responses(3).await?;
    let mut present = Vec::new();
    while let Some(response) = responses.next().await {
        present.push(response?.into_message().machine);
    }
    present.sort();
    println!("4. every machine responds to a roll call: {}", present.join(", "));

    // A stream: messages both ways with one server, until either side closes it.
    let sketch = client.sketch().await?;
    for adds in ["a hill", "a tower"] {
        sketch.send(Stroke { adds: adds.into() }).await?;
        let preview = sketch.next().await.expect("the stream is open");
        println!("5. a machine sketches on a stream: {}", preview.shows);
    }
    sketch.close(None);

    // A subscription: every subscriber gets the updates that any server publishes.
    let mut news = client.subscribe_finished().await?;
    servers[1].publish_finished(&picture).await?;
    let update = news.next().await.expect("the subscription is open")?;
    println!("6. every subscriber learns that {} has finished a picture", update.machine);

    // A handler's error reaches the caller with its code and text.
    let nothing = Scene { name: "nothing".into(), triangles: 0 };
    let error = client.render(nothing).await.expect_err("the scene is empty");
    println!("7. a call can fail: {} ({})", error.text(), error.code());

    // No server meets the minimum affinity. The explanation says more.
    let picky = Selection::new().minimum_affinity(0.95);
    let error = client.render(castle.clone()).selection(picky).await.expect_err("no machine is that idle");
    let explanation = error.explanation().unwrap_or_default();
    println!("8. a call that no server can take fails: {} - {explanation}", error.text());

    // Dropping a call cancels it. If it was not granted yet, it does not run.
    let hesitant = client.render(castle).selection(Selection::none()).timeout(Duration::from_millis(500));
    if timeout(Duration::from_millis(50), hesitant).await.is_err() {
        println!("9. a call dropped before its grant is canceled and does not run");
    }

    for server in servers {
        server.shutdown().await;
    }
    println!("10. the machines have shut down, after finishing all accepted requests");
    Ok(())
}
