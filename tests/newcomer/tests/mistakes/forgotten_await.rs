//! A call and a send that are never awaited.

#![deny(unused_must_use)]

use psrpc_newcomer::hats::{HatAsk, HatsClient};
use psrpc_newcomer::psrpc::Error;

async fn call(client: &HatsClient) -> Result<(), Error> {
    client.fit(HatAsk { name: "fez".into() });
    let stream = client.parade().await?;
    stream.send(HatAsk { name: "fez".into() });
    Ok(())
}

fn main() {}
