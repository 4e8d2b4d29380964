//! A message of the wrong type: the reply instead of the request.

use psrpc_newcomer::hats::{HatReply, HatsClient};
use psrpc_newcomer::psrpc::Error;

async fn call(client: &HatsClient) -> Result<(), Error> {
    client.fit(HatReply { text: "fez".into() }).await?;
    client.parade().await?.send(HatReply { text: "fez".into() }).await
}

fn main() {}
