//! The responses to a multi call.

use std::fmt;
use std::future::poll_fn;
use std::ops::Deref;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;
use psrpc_engine::proto::Text;

use crate::error::Error;

/// A server's response to a multi call. Dereferences to the message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response<Res> {
    server_id: Text,
    message: Res,
}

impl<Res> Response<Res> {
    /// Returns a response, for interceptors and fakes.
    pub fn new(server_id: impl Into<Text>, message: Res) -> Self {
        Self { server_id: server_id.into(), message }
    }

    /// Returns the id of the server.
    pub fn server_id(&self) -> &str {
        self.server_id.as_str()
    }

    /// Returns the message.
    pub fn into_message(self) -> Res {
        self.message
    }

    /// Returns the response with its message replaced by `map`, which may fail.
    ///
    /// # Errors
    ///
    /// Those of `map`.
    pub fn try_map<T, E>(self, map: impl FnOnce(Res) -> Result<T, E>) -> Result<Response<T>, E> {
        Ok(Response { message: map(self.message)?, server_id: self.server_id })
    }
}

impl<Res> Deref for Response<Res> {
    type Target = Res;

    fn deref(&self) -> &Res {
        &self.message
    }
}

/// The stream of responses to a [`MultiCall`](crate::MultiCall), one from each server, in order of
/// arrival.
///
/// An error belongs to the server that [`Error::server_id`] returns. An error without a server
/// means that the call failed, and is the last item. Dropping the stream ends the call; later
/// responses are dropped.
#[must_use = "dropping the responses ends the call"]
pub struct Responses<Res>(Option<ResponseStream<Res>>);

type ResponseStream<Res> = Pin<Box<dyn Stream<Item = Result<Response<Res>, Error>> + Send>>;

impl<Res> Responses<Res> {
    /// Wraps a stream of responses, for interceptors and fakes.
    pub fn new(responses: impl Stream<Item = Result<Response<Res>, Error>> + Send + 'static) -> Self {
        Self(Some(Box::pin(responses)))
    }

    /// Returns the next response, or `None` once there are no more. Cancel safe: dropping the
    /// future loses no response.
    pub async fn next(&mut self) -> Option<Result<Response<Res>, Error>> {
        poll_fn(|cx| self.poll_response(cx)).await
    }

    fn poll_response(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Response<Res>, Error>>> {
        let Some(responses) = &mut self.0 else { return Poll::Ready(None) };
        let polled = responses.as_mut().poll_next(cx);
        if let Poll::Ready(None) = polled {
            self.0 = None;
        }
        polled
    }
}

impl<Res: Send + 'static> Responses<Res> {
    /// Applies `map` to each response.
    pub fn map_responses<T>(
        self,
        map: impl FnMut(Result<Response<Res>, Error>) -> Result<Response<T>, Error> + Send + Unpin + 'static,
    ) -> Responses<T> {
        Responses::new(Mapped { responses: self, map })
    }
}

impl<Res> Stream for Responses<Res> {
    type Item = Result<Response<Res>, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_response(cx)
    }
}

impl<Res> fmt::Debug for Responses<Res> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Responses").finish_non_exhaustive()
    }
}

struct Mapped<Res, F> {
    responses: Responses<Res>,
    map: F,
}

impl<Res, T, F> Stream for Mapped<Res, F>
where
    F: FnMut(Result<Response<Res>, Error>) -> Result<Response<T>, Error> + Unpin,
{
    type Item = Result<Response<T>, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        this.responses.poll_response(cx).map(|response| response.map(&mut this.map))
    }
}
