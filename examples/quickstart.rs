//! All that PSRPC does, in one file: three servers bid for a call and the best one answers it; all
//! of them answer a multi call; a stream; a subscription; and what can go wrong.
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

    // All three bid with their affinity, and the client picks the best.
    let castle = Scene { name: "castle".into(), triangles: 4000 };
    let picture = client.render(castle.clone()).await?;
    println!("2. every machine bid for the castle, and {} renders it: the most idle", picture.machine);

    // The bus hands the request to one of them, without an auction.
    let size = client.estimate(castle.clone()).await?;
    println!("3. any one machine can estimate: the picture will have {} bytes", size.bytes);

    // A multi call: every server answers. Three answers are enough; without that, it would go on
    // until its timeout.
    let mut answers = client.roll_call(()).answers(3).await?;
    let mut present = Vec::new();
    while let Some(answer) = answers.next().await {
        present.push(answer?.into_message().machine);
    }
    present.sort();
    println!("4. every machine answers a roll call: {}", present.join(", "));

    // A stream: messages both ways, with one server, until either side closes it.
    let sketch = client.sketch().await?;
    for adds in ["a hill", "a tower"] {
        sketch.send(Stroke { adds: adds.into() }).await?;
        let preview = sketch.next().await.expect("the stream is open");
        println!("5. a machine sketches on a stream: {}", preview.shows);
    }
    sketch.close(None);

    // A subscription: what any server publishes reaches everybody who is subscribed.
    let mut news = client.subscribe_finished().await?;
    servers[1].publish_finished(&picture).await?;
    let update = news.next().await.expect("nobody has unsubscribed")?;
    println!("6. who is subscribed hears that {} has finished a picture", update.machine);

    // What a handler answers with an error arrives as that error, with its code.
    let nothing = Scene { name: "nothing".into(), triangles: 0 };
    let error = client.render(nothing).await.expect_err("there is nothing to render");
    println!("7. a call can fail: {} ({})", error.text(), error.code());

    // A call that asks for more than anybody has, and what is known of why.
    let picky = Selection::new().minimum_affinity(0.95);
    let error = client.render(castle.clone()).selection(picky).await.expect_err("nobody is that idle");
    let why = error.explanation().unwrap_or_default();
    println!("8. a call that nobody can take says why: {} - {why}", error.text());

    // Dropping a call cancels it; one that was not granted yet then runs nowhere.
    let hesitant = client.render(castle).selection(Selection::none()).timeout(Duration::from_millis(500));
    if timeout(Duration::from_millis(50), hesitant).await.is_err() {
        println!("9. a call dropped before it was granted is canceled, and runs nowhere");
    }

    for server in servers {
        server.shutdown().await;
    }
    println!("10. the machines have shut down, with nothing left undone");
    Ok(())
}
