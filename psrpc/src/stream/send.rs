//! Sending a message on a stream.

use std::fmt;
use std::future::{Future, IntoFuture};
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

/// A message to be sent: set its timeout if need be, then await it.
///
/// It resolves when the other side has taken the message. Dropping its future stops to wait; whether the message arrives is open
/// then, unless the future was never polled. A future that is kept keeps the stream, as a half of it would.
///
/// # Errors
///
/// | reason | code | what happened | may it have arrived? |
/// |---|---|---|---|
/// | [`TimedOut`](crate::Reason::TimedOut) | `deadline_exceeded` | it was not taken in time: it or its ack was lost, or the consumer has no room | yes |
/// | that of the end | that of the cause | the stream has ended | yes, if it ended meanwhile |
/// | [`PublishFailed`](crate::Reason::PublishFailed) | `unavailable` | the bus did not take it | not as far as the bus knows |
/// | none | `invalid_argument` | it is too large | no |
/// | none | `resource_exhausted` | too many messages of the stream are on their way | no |
#[must_use = "a message is sent when it is awaited"]
pub struct Sending<'a> {
    end: &'a Arc<dyn StreamEnd>,
    message: Outgoing,
    options: SendOptions,
}

/// A message, with or without its type, as what is around the stream needs it.
enum Outgoing {
    Encoded(Vec<u8>),
    Typed(AnyMessage),
}

impl<'a> Sending<'a> {
    pub(super) fn new(end: &'a Arc<dyn StreamEnd>, message: impl Message + 'static) -> Self {
        let message = match end.codec().layers() {
            [] => Outgoing::Encoded(message.encode_to_vec()),
            _ => Outgoing::Typed(AnyMessage::new(message)),
        };
        Self { end, message, options: SendOptions::default() }
    }

    /// How long it may take from when it is first polled. Default: that of the client or server, 3 s.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.options.timeout = Some(timeout);
        self
    }
}

impl fmt::Debug for Sending<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sending").field("options", &self.options).finish_non_exhaustive()
    }
}

impl IntoFuture for Sending<'_> {
    type Output = Result<(), Error>;
    type IntoFuture = SendFuture;

    fn into_future(self) -> SendFuture {
        SendFuture(State::New(Arc::clone(self.end), self.message, self.options))
    }
}

/// A message on its way: the future of a [`Sending`].
#[must_use = "a message is sent when it is awaited"]
pub struct SendFuture(State);

enum State {
    New(Arc<dyn StreamEnd>, Outgoing, SendOptions),
    OnItsWay(OnItsWay),
    Intercepted(BoxFuture<Result<(), Error>>),
    Done,
}

impl SendFuture {
    /// A message that goes past what is around the stream.
    pub(crate) fn past_layers(end: Arc<dyn StreamEnd>, payload: Vec<u8>, options: SendOptions) -> Self {
        Self(State::New(end, Outgoing::Encoded(payload), options))
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
            match std::mem::replace(&mut self.0, State::Done) {
                State::New(end, Outgoing::Encoded(payload), options) => {
                    self.0 = State::OnItsWay(OnItsWay::start(end, payload, options)?);
                }
                State::New(end, Outgoing::Typed(message), options) => {
                    self.0 = State::Intercepted(NextSend::new(end).run(message, options));
                }
                State::OnItsWay(mut sending) => {
                    let polled = sending.poll(cx);
                    if polled.is_pending() {
                        self.0 = State::OnItsWay(sending);
                    }
                    return polled;
                }
                State::Intercepted(mut sending) => {
                    let polled = sending.as_mut().poll(cx);
                    if polled.is_pending() {
                        self.0 = State::Intercepted(sending);
                    }
                    return polled;
                }
                State::Done => panic!("a send was polled after it was done"),
            }
        }
    }
}

/// A message that was sent. Dropping it stops to wait.
struct OnItsWay {
    end: Arc<dyn StreamEnd>,
    /// `None` once the outcome was fetched.
    sender: Option<usize>,
}

impl OnItsWay {
    fn start(end: Arc<dyn StreamEnd>, payload: Vec<u8>, options: SendOptions) -> Result<Self, Error> {
        match end.start_send(payload.into(), options) {
            Ok(sender) => Ok(Self { end, sender: Some(sender) }),
            Err(SendError::Ended) => Err(end.cause().unwrap_or_else(Error::stream_closed)),
            Err(error) => {
                let code = error.code();
                Err(Error::from_source(code, error))
            }
        }
    }

    fn poll(&mut self, cx: &Context<'_>) -> Poll<Result<(), Error>> {
        let sender = self.sender.expect("a send is polled until it is done");
        let polled = self.end.poll_sent(sender, cx);
        if polled.is_ready() {
            self.sender = None;
        }
        polled.map_err(|failure| (*failure).into())
    }
}

impl Drop for OnItsWay {
    fn drop(&mut self) {
        if let Some(sender) = self.sender {
            self.end.cancel_send(sender);
        }
    }
}
