//! The sending half of a stream as a `Sink`.

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_sink::Sink;
use prost::Message;

use super::SendHalf;
use super::send::SendFuture;
use crate::error::Error;

/// The sending half of a stream as a [`Sink`]. It sends one message at a time, and waits until the
/// other side has accepted it before sending the next.
///
/// Closing the sink ends the stream without an error.
pub struct SendSink<S> {
    half: SendHalf<S>,
    sending: Option<SendFuture>,
}

impl<S> SendSink<S> {
    pub(super) fn new(half: SendHalf<S>) -> Self {
        Self { half, sending: None }
    }

    /// Returns the half. Stops waiting for a pending message.
    pub fn into_inner(self) -> SendHalf<S> {
        self.half
    }

    fn poll_sent(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let Some(sending) = &mut self.sending else { return Poll::Ready(Ok(())) };
        let polled = Pin::new(sending).poll(cx);
        if polled.is_ready() {
            self.sending = None;
        }
        polled
    }
}

impl<S: Message + 'static> Sink<S> for SendSink<S> {
    type Error = Error;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.poll_sent(cx)
    }

    fn start_send(mut self: Pin<&mut Self>, message: S) -> Result<(), Error> {
        let sending = self.half.send(message).into_future();
        self.sending = Some(sending);
        Ok(())
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.poll_sent(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let sent = std::task::ready!(self.poll_sent(cx));
        self.half.close(None);
        Poll::Ready(sent)
    }
}

impl<S> std::fmt::Debug for SendSink<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("SendSink").field(&self.half).finish()
    }
}
