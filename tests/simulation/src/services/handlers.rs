//! The handlers of a server. They do what the request asks for and record it in the ledger.

use std::panic::resume_unwind;
use std::sync::Arc;
use std::time::Duration;

use psrpc::{Error, ErrorCode, Request, Runtime, ServerStream, Time};

use super::hats::{Ask, Hats, Manner, Reply};
use crate::fault::Fault;
use crate::judge::services::ledger::Ledger;
use crate::judge::services::stream_messages::Direction;
use crate::judge::services::user_call::HandlerEnd;
use crate::rng::Rng;

/// The metadata key for the number of a stream.
pub const STREAM: &str = "stream";

/// The metadata key for the seed of the behaviour of the stream's handler.
pub const HABIT: &str = "habit";

/// The handlers of one incarnation of a server.
pub struct Handlers {
    /// The number of the server in the ledger.
    pub server: usize,
    /// The affinity of its bids.
    pub affinity: f32,
    /// The runtime that it waits on.
    pub runtime: Arc<dyn Runtime>,
    /// The ledger that records what it does.
    pub ledger: Ledger,
}

/// A running handler. Dropping it before it has finished is recorded.
struct RunningHandler<'a> {
    handlers: &'a Handlers,
    call: usize,
    deadline: Time,
    ended: bool,
}

impl RunningHandler<'_> {
    fn end(&mut self, end: HandlerEnd) {
        self.ended = true;
        self.handlers.ledger.handler_ended(self.handlers.server, self.call, end);
    }
}

impl Drop for RunningHandler<'_> {
    fn drop(&mut self) {
        if !self.ended {
            let Handlers { server, runtime, ledger, .. } = self.handlers;
            ledger.handler_dropped(*server, self.call, runtime.now().time >= self.deadline);
        }
    }
}

/// A stream with a running handler.
struct HandledStream<'a>(&'a Ledger, usize);

impl Drop for HandledStream<'_> {
    fn drop(&mut self) {
        self.0.set_handled(self.1, false);
    }
}

impl Handlers {
    async fn handle(&self, ask: Request<Ask>) -> Result<Reply, Error> {
        let call = ask.number as usize;
        self.ledger.handler_started(self.server, call, ask.request_id());
        let mut run = RunningHandler { handlers: self, call, deadline: ask.deadline(), ended: false };
        if ask.micros > 0 {
            self.sleep(Duration::from_micros(ask.micros.into())).await;
        }
        match ask.manner() {
            Manner::Answer => {
                run.end(HandlerEnd::Answer);
                Ok(Reply { number: ask.number, server: self.server as u64 })
            }
            Manner::Fail => {
                run.end(HandlerEnd::Failure);
                Err(Error::new(ErrorCode::FailedPrecondition, "as requested"))
            }
            Manner::Panic => {
                run.end(HandlerEnd::Panic);
                // `resume_unwind` does not call the panic hook, so nothing is printed.
                resume_unwind(Box::new("as requested"));
            }
            Manner::Hang => std::future::pending().await,
        }
    }

    /// Receives messages and replies to each, until the stream ends or a random limit is reached.
    async fn run_stream(&self, stream: ServerStream<Reply, Ask>) -> Result<(), Error> {
        let number = |name| stream.metadata().get(name).and_then(|number| number.as_str().parse().ok());
        let (Some(id), Some(habit)) = (number(STREAM), number(HABIT)) else {
            return Err(Error::new(ErrorCode::InvalidArgument, "stream or habit is missing"));
        };
        let mut rng = Rng::new(habit as u64);
        let patience = rng.maybe(300, |rng| rng.index(5));
        self.ledger.set_handled(id, true);
        let _handling = HandledStream(&self.ledger, id);
        let mut taken = 0;
        while let Some(ask) = stream.next().await {
            self.ledger.message_received(id, Direction::ToServer, ask.number);
            taken += 1;
            if patience.is_some_and(|patience| habit > 0 && taken > patience) {
                drop(stream);
                self.ledger.receiver_dropped(id, Direction::ToServer);
                self.sleep(rng.grains(0..2000)).await;
                return Ok(());
            }
            if habit > 0 && rng.chance(200) {
                self.ledger.count(Fault::SlowConsumer);
                self.sleep(rng.grains(0..400)).await;
            }
            let (reply, start) = (self.ledger.add_message(id, Direction::ToClient), self.ledger.now());
            if stream.send(Reply { number: reply, server: self.server as u64 }).await.is_ok() {
                self.ledger.message_sent(id, Direction::ToClient, reply, start);
            }
        }
        self.ledger.received_all(id, Direction::ToServer);
        if rng.chance(200) { Err(Error::new(ErrorCode::Aborted, "enough")) } else { Ok(()) }
    }

    async fn sleep(&self, duration: Duration) {
        self.runtime.sleep_until(self.runtime.now().time + duration).await;
    }
}

impl Hats for Handlers {
    async fn fit(&self, ask: Request<Ask>) -> Result<Reply, Error> {
        self.handle(ask).await
    }

    async fn pick(&self, ask: Request<Ask>) -> Result<Reply, Error> {
        self.handle(ask).await
    }

    fn pick_affinity(&self, _: &Request<Ask>) -> f32 {
        self.affinity
    }

    async fn own_fit(&self, ask: Request<Ask>) -> Result<Reply, Error> {
        self.handle(ask).await
    }

    async fn census(&self, ask: Request<Ask>) -> Result<Reply, Error> {
        self.handle(ask).await
    }

    async fn parade(&self, stream: ServerStream<Reply, Ask>) -> Result<(), Error> {
        self.run_stream(stream).await
    }

    async fn pick_parade(&self, stream: ServerStream<Reply, Ask>) -> Result<(), Error> {
        self.run_stream(stream).await
    }

    fn pick_parade_affinity(&self, _: &Request<()>) -> f32 {
        self.affinity
    }
}
