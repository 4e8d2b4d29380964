//! The answers to a multi call.

use std::fmt;
use std::future::poll_fn;
use std::ops::Deref;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;
use psrpc_engine::proto::Text;

use crate::error::Error;

/// What a server answers to a multi call. Dereferences to the message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer<Res> {
    server_id: Text,
    message: Res,
}

impl<Res> Answer<Res> {
    /// An answer, for interceptors and fakes.
    pub fn new(server_id: impl Into<Text>, message: Res) -> Self {
        Self { server_id: server_id.into(), message }
    }

    /// Who answers.
    pub fn server_id(&self) -> &str {
        self.server_id.as_str()
    }

    /// The message alone.
    pub fn into_message(self) -> Res {
        self.message
    }

    /// The same answer with another message, if `map` makes one of this one.
    ///
    /// # Errors
    ///
    /// Those of `map`.
    pub fn try_map<T, E>(self, map: impl FnOnce(Res) -> Result<T, E>) -> Result<Answer<T>, E> {
        Ok(Answer { message: map(self.message)?, server_id: self.server_id })
    }
}

impl<Res> Deref for Answer<Res> {
    type Target = Res;

    fn deref(&self) -> &Res {
        &self.message
    }
}

/// The answers to a [`MultiCall`](crate::MultiCall), in the order in which they come: one of each
/// server.
///
/// An error is that of a server, as [`Error::server_id`] tells; one without a server ends the call,
/// which had failed. Dropping it ends the call: what servers still answer is dropped.
#[must_use = "answers come to those who look"]
pub struct Answers<Res>(Option<AnswerStream<Res>>);

type AnswerStream<Res> = Pin<Box<dyn Stream<Item = Result<Answer<Res>, Error>> + Send>>;

impl<Res> Answers<Res> {
    /// Answers that come from elsewhere, for interceptors and fakes.
    pub fn new(answers: impl Stream<Item = Result<Answer<Res>, Error>> + Send + 'static) -> Self {
        Self(Some(Box::pin(answers)))
    }

    /// The next answer; `None` when no more will come. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Result<Answer<Res>, Error>> {
        poll_fn(|cx| self.poll_answer(cx)).await
    }

    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Answer<Res>, Error>>> {
        let Some(answers) = &mut self.0 else { return Poll::Ready(None) };
        let polled = answers.as_mut().poll_next(cx);
        if let Poll::Ready(None) = polled {
            self.0 = None;
        }
        polled
    }
}

impl<Res: Send + 'static> Answers<Res> {
    /// The same answers, each as `map` makes it.
    pub fn map_answers<T>(
        self,
        map: impl FnMut(Result<Answer<Res>, Error>) -> Result<Answer<T>, Error> + Send + Unpin + 'static,
    ) -> Answers<T> {
        Answers::new(Mapped { answers: self, map })
    }
}

impl<Res> Stream for Answers<Res> {
    type Item = Result<Answer<Res>, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_answer(cx)
    }
}

impl<Res> fmt::Debug for Answers<Res> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answers").finish_non_exhaustive()
    }
}

struct Mapped<Res, F> {
    answers: Answers<Res>,
    map: F,
}

impl<Res, T, F> Stream for Mapped<Res, F>
where
    F: FnMut(Result<Answer<Res>, Error>) -> Result<Answer<T>, Error> + Unpin,
{
    type Item = Result<Answer<T>, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        this.answers.poll_answer(cx).map(|answer| answer.map(&mut this.map))
    }
}
