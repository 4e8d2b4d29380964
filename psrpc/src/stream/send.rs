//! Sending messages on a stream.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use prost::Message;
use psrpc_engine::SendError;

use super::end::StreamEnd;
use crate::error::Error;
use crate::interceptor::{NextSend, SendOptions};
use crate::message::AnyMessage;
use crate::runtime::BoxFuture;

/// A builder for a send. Await it to send the message.
///
/// The future resolves once the other side has accepted the message. Dropping the future stops the
/// wait. The message may still arrive, unless the future was never polled or the send was waiting
/// for others. Holding the future keeps the stream open, as holding a half does.
///
/// # Errors
///
/// | reason | code | what happened | may it have arrived? |
/// |---|---|---|---|
/// | [`TimedOut`](crate::Reason::TimedOut) | `deadline_exceeded` | it was not accepted in time: the message or its ack was lost, or the consumer has no room | yes, unless [`may_have_run`](crate::Error::may_have_run) is `false` |
/// | that of the stream's end | that of the cause | the stream has ended | yes, if it ended during the send |
/// | [`PublishFailed`](crate::Reason::PublishFailed) | `unavailable` | the bus did not accept it | yes |
/// | [`PublishFailed`](crate::Reason::PublishFailed) | `invalid_argument` | the bus cannot carry it | no |
/// | none | `invalid_argument` | the message is too large | no |
/// | none | `resource_exhausted` | too many sends on the stream wait for others | no |
#[must_use = "a message is not sent until it is awaited"]
pub struct PendingSend<'a> {
    end: &'a Arc<dyn StreamEnd>,
    message: OutgoingMessage,
    options: SendOptions,
}

/// An outgoing message. Interceptors need its type.
enum OutgoingMessage {
    Encoded(Vec<u8>),
    Typed(AnyMessage),
}

impl<'a> PendingSend<'a> {
    pub(super) fn new(end: &'a Arc<dyn StreamEnd>, message: impl Message + 'static) -> Self {
        let message = match end.codec().intercepted() {
            [] => OutgoingMessage::Encoded(message.encode_to_vec()),
            _ => OutgoingMessage::Typed(AnyMessage::new(message)),
        };
        Self { end, message, options: SendOptions::default() }
    }

    /// Sets how long the send may take, counted from the first poll, including the wait for other
    /// sends. Default: the timeout of the client or server, 3 s.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.options.timeout = Some(timeout);
        self
    }
}

impl fmt::Debug for PendingSend<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PendingSend").field("options", &self.options).finish_non_exhaustive()
    }
}

impl IntoFuture for PendingSend<'_> {
    type Output = Result<(), Error>;
    type IntoFuture = SendFuture;

    fn into_future(self) -> SendFuture {
        SendFuture(SendState::New(Arc::clone(self.end), self.message, self.options))
    }
}

/// The future of a [`PendingSend`].
#[must_use = "a message is not sent until it is awaited"]
pub struct SendFuture(SendState);

enum SendState {
    New(Arc<dyn StreamEnd>, OutgoingMessage, SendOptions),
    /// Passed to the engine. Holds the key to poll for the outcome.
    Sent(Arc<dyn StreamEnd>, usize),
    Intercepted(BoxFuture<Result<(), Error>>),
    Done,
}

impl SendFuture {
    /// Sends an encoded message without interceptors.
    pub(crate) fn unintercepted(end: Arc<dyn StreamEnd>, payload: Vec<u8>, options: SendOptions) -> Self {
        Self(SendState::New(end, OutgoingMessage::Encoded(payload), options))
    }
}

impl fmt::Debug for SendFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendFuture").finish_non_exhaustive()
    }
}

impl Future for SendFuture {
    type Output = Result<(), Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            let polled = match &mut self.0 {
                SendState::New(..) => {
                    let SendState::New(end, message, options) = mem::replace(&mut self.0, SendState::Done)
                    else {
                        unreachable!("matched above");
                    };
                    self.0 = start(end, message, options)?;
                    continue;
                }
                SendState::Sent(end, key) => end.poll_sent(*key, cx).map_err(|failure| (*failure).into()),
                SendState::Intercepted(sending) => sending.as_mut().poll(cx),
                SendState::Done => panic!("`SendFuture` polled after completion"),
            };
            if polled.is_ready() {
                self.0 = SendState::Done;
            }
            return polled;
        }
    }
}

/// Passes a message to the engine, or to the interceptors if there are any.
fn start(
    end: Arc<dyn StreamEnd>,
    message: OutgoingMessage,
    options: SendOptions,
) -> Result<SendState, Error> {
    let payload = match message {
        OutgoingMessage::Encoded(payload) => payload,
        OutgoingMessage::Typed(message) => {
            return Ok(SendState::Intercepted(NextSend::new(end).run(message, options)));
        }
    };
    match end.start_send(payload.into(), options) {
        Ok(key) => Ok(SendState::Sent(end, key)),
        Err(SendError::Ended) => Err(end.cause().unwrap_or_else(Error::stream_closed)),
        Err(error) => {
            let code = error.code();
            Err(Error::from_source(code, error))
        }
    }
}

impl Drop for SendFuture {
    /// Stops waiting for the outcome of a send.
    fn drop(&mut self) {
        if let SendState::Sent(end, key) = &self.0 {
            end.cancel_send(*key);
        }
    }
}
