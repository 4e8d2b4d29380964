//! The answers to a multi call.

use std::fmt;
use std::future::poll_fn;
use std::ops::Deref;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_core::Stream;
use prost::Message;
use psrpc_engine::proto::{ErrorCode, ErrorResponse, Text};
use psrpc_engine::{Evidence, Failure, MultiCall as EngineCall, MultiHandle, Reason};

use crate::Error;
use crate::client::Client;

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

/// The answers to a [`MultiCall`](crate::MultiCall), in the order in which they come: one of each server.
///
/// An error is that of a server, as [`Error::server_id`] tells; one without a server ends the call, which had failed.
/// Dropping it ends the call: what servers still answer is dropped.
#[must_use = "answers come to those who look"]
pub struct Answers<Res>(Source<Res>);

enum Source<Res> {
    InFlight { call: InFlight, decode: fn(Bytes) -> Result<Res, Error> },
    Stream(Pin<Box<dyn Stream<Item = Result<Answer<Res>, Error>> + Send>>),
    Over,
}

impl<Res> Answers<Res> {
    /// Answers that come from elsewhere, for interceptors and fakes.
    pub fn new(answers: impl Stream<Item = Result<Answer<Res>, Error>> + Send + 'static) -> Self {
        Self(Source::Stream(Box::pin(answers)))
    }

    /// The next answer; `None` when no more will come. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Result<Answer<Res>, Error>> {
        poll_fn(|cx| self.poll_answer(cx)).await
    }

    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Answer<Res>, Error>>> {
        let polled = match &mut self.0 {
            Source::InFlight { call, decode } => call.poll_answer(*decode, cx),
            Source::Stream(answers) => answers.as_mut().poll_next(cx),
            Source::Over => Poll::Ready(None),
        };
        if let Poll::Ready(None) = polled {
            self.0 = Source::Over;
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

impl<Res: Message + Default> Answers<Res> {
    pub(super) fn in_flight(client: Client, call: EngineCall) -> Result<Self, Error> {
        let decode = |payload| {
            Res::decode(payload).map_err(|error| {
                Error::from_source(ErrorCode::MalformedResult, error).with_reason(Reason::MalformedResult)
            })
        };
        Ok(Self(Source::InFlight { call: InFlight::start(client, call)?, decode }))
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

/// A multi call in flight. Dropping it ends the call.
struct InFlight {
    client: Client,
    call: MultiHandle,
    key: usize,
}

/// What a call has to tell, as it is kept until somebody looks.
pub(super) enum Told {
    Answer(Text, Result<Bytes, ErrorResponse>),
    Failed(Box<Failure>),
}

impl InFlight {
    fn start(client: Client, call: EngineCall) -> Result<Self, Error> {
        let (call, key) = client.driver().drive(|state, now| {
            let call = state.engine.multi_call(now, call)?;
            Ok::<_, Error>((call, state.role.multi_calls.start(call)))
        })?;
        Ok(Self { client, call, key })
    }

    fn poll_answer<Res>(
        &mut self,
        decode: fn(Bytes) -> Result<Res, Error>,
        cx: &Context<'_>,
    ) -> Poll<Option<Result<Answer<Res>, Error>>> {
        let (polled, _replaced) = self.client.driver().look(|view| view.role.multi_calls.poll(self.key, cx));
        polled.map(|told| {
            Some(match told? {
                Told::Answer(server_id, Ok(payload)) => match decode(payload) {
                    Ok(message) => Ok(Answer { server_id, message }),
                    Err(error) => Err(error.of_server(server_id)),
                },
                Told::Answer(server_id, Err(error)) => {
                    Err(Error::answered(error, Evidence { selected: Some(server_id), ..Evidence::default() }))
                }
                Told::Failed(failure) => Err((*failure).into()),
            })
        })
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let forgotten = self.client.driver().drive(|state, now| {
            let (in_flight, forgotten) = state.role.multi_calls.forget(self.key);
            if in_flight {
                state.engine.cancel_multi(now, self.call);
            }
            forgotten
        });
        // Without the lock.
        drop(forgotten);
    }
}
