//! The hatter: the handlers of a server, which do what they are asked and write it into the book.

use std::panic::resume_unwind;
use std::time::Duration;

use psrpc::{Error, ErrorCode, Request, Runtime, ServerStream, Time};

use super::book::Book;
use super::call::Said;
use super::messages::Way;
use super::proto::{Ask, Hats, Manner, Reply};
use crate::fault::Fault;
use crate::rng::Rng;
use crate::service::NodeRuntime;

/// What a client sends along with a stream: its number, and how its handler behaves.
pub(super) const STREAM: &str = "stream";
pub(super) const HABIT: &str = "habit";

/// Whoever handles the requests of one incarnation of a server.
pub(super) struct Hatter {
    pub(super) server: usize,
    pub(super) affinity: f32,
    pub(super) runtime: NodeRuntime,
    pub(super) book: Book,
}

/// A handler that runs: notes when it is dropped before its end.
struct Run<'a> {
    hatter: &'a Hatter,
    call: usize,
    deadline: Time,
    over: bool,
}

impl Run<'_> {
    fn says(&mut self, said: Said) {
        self.over = true;
        self.hatter.book.said(self.hatter.server, self.call, said);
    }
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        if !self.over {
            let Hatter { server, runtime, book, .. } = self.hatter;
            book.cut_short(*server, self.call, runtime.now().time >= self.deadline);
        }
    }
}

/// A stream that is handled.
struct Handling<'a>(&'a Book, usize);

impl Drop for Handling<'_> {
    fn drop(&mut self) {
        self.0.handling(self.1, false);
    }
}

impl Hatter {
    async fn handle(&self, ask: Request<Ask>) -> Result<Reply, Error> {
        let call = ask.number as usize;
        self.book.started(self.server, call, ask.request_id());
        let mut run = Run { hatter: self, call, deadline: ask.deadline(), over: false };
        if ask.micros > 0 {
            self.sleep(Duration::from_micros(ask.micros.into())).await;
        }
        match ask.manner() {
            Manner::Answer => {
                run.says(Said::Answer);
                Ok(Reply { number: ask.number, server: self.server as u64 })
            }
            Manner::Fail => {
                run.says(Said::Failure);
                Err(Error::new(ErrorCode::FailedPrecondition, "as asked"))
            }
            Manner::Panic => {
                run.says(Said::Panic);
                // Without a word on the standard error.
                resume_unwind(Box::new("as asked"));
            }
            Manner::Hang => std::future::pending().await,
        }
    }

    /// Takes what comes and answers it, until the stream ends or it has enough.
    async fn march(&self, stream: ServerStream<Reply, Ask>) -> Result<(), Error> {
        let number = |name| stream.metadata().get(name).and_then(|number| number.as_str().parse().ok());
        let (Some(id), Some(habit)) = (number(STREAM), number(HABIT)) else {
            return Err(Error::new(ErrorCode::InvalidArgument, "of nobody"));
        };
        let mut rng = Rng::new(habit as u64);
        let patience = rng.maybe(300, |rng| rng.index(5));
        self.book.handling(id, true);
        let _handling = Handling(&self.book, id);
        let mut taken = 0;
        while let Some(ask) = stream.next().await {
            self.book.received(id, Way::ToServer, ask.number);
            taken += 1;
            if patience.is_some_and(|patience| habit > 0 && taken > patience) {
                drop(stream);
                self.book.let_go(id, Way::ToServer);
                self.sleep(rng.grains(0..2000)).await;
                return Ok(());
            }
            if habit > 0 && rng.chance(200) {
                self.book.count(Fault::SlowConsumer);
                self.sleep(rng.grains(0..400)).await;
            }
            let (reply, began) = (self.book.sending(id, Way::ToClient), self.book.now());
            if stream.send(Reply { number: reply, server: self.server as u64 }).await.is_ok() {
                self.book.sent(id, Way::ToClient, reply, began);
            }
        }
        self.book.to_the_end(id, Way::ToServer);
        if rng.chance(200) { Err(Error::new(ErrorCode::Aborted, "enough")) } else { Ok(()) }
    }

    async fn sleep(&self, duration: Duration) {
        self.runtime.sleep_until(self.runtime.now().time + duration).await;
    }
}

impl Hats for Hatter {
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
        self.march(stream).await
    }

    async fn pick_parade(&self, stream: ServerStream<Reply, Ask>) -> Result<(), Error> {
        self.march(stream).await
    }

    fn pick_parade_affinity(&self, _: &Request<()>) -> f32 {
        self.affinity
    }
}
