//! A handler whose future is not `Send`.

use std::rc::Rc;

use psrpc_newcomer::hats::{HatAsk, HatReply, Hats};
use psrpc_newcomer::psrpc::{Error, Request, ServerStream};

struct Hatter;

impl Hats for Hatter {
    async fn fit(&self, request: Request<HatAsk>) -> Result<HatReply, Error> {
        let name = Rc::new(request.name.clone());
        std::future::ready(()).await;
        Ok(HatReply { text: name.to_string() })
    }

    async fn parade(&self, _: ServerStream<HatReply, HatAsk>) -> Result<(), Error> {
        Ok(())
    }
}

fn main() {}
