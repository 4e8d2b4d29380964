//! A service without one of its methods.

use psrpc_newcomer::hats::{HatAsk, HatReply, Hats};
use psrpc_newcomer::psrpc::{Error, ServerStream};

struct Hatter;

impl Hats for Hatter {
    async fn parade(&self, _: ServerStream<HatReply, HatAsk>) -> Result<(), Error> {
        Ok(())
    }
}

fn main() {}
