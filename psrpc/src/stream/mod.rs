//! Streams of messages in both directions, between a client and one server.

mod codec;
mod driver_end;
mod end;
mod incoming;
mod received;
mod send;
mod sink;
mod table;

use std::fmt;
use std::future::poll_fn;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_core::Stream;
use prost::Message;
use psrpc_engine::WallTime;
use psrpc_engine::proto::{Metadata, Text};

use crate::client::within;
use crate::client::within::Scope;
use crate::error::Error;
use crate::info::CallInfo;
use crate::request::RequestContext;
use crate::waiting::WaiterKey;

pub(crate) use self::codec::Codec;
pub(crate) use self::driver_end::DriverEnd;
pub(crate) use self::end::StreamEnd;
use self::end::{StreamWaiter, closed};
pub(crate) use self::incoming::StreamRole;
pub use self::send::PendingSend;
pub use self::sink::SendSink;
use self::table::Awaited;
pub(crate) use self::table::{StreamTable, StreamTask};

/// The client's side of a stream: sends `S` and receives `R`. See [`BiStream`].
pub type ClientStream<S, R> = BiStream<AtClient, S, R>;

/// The server's side of a stream, passed to its handler: sends `S` and receives `R`. See
/// [`BiStream`].
///
/// The stream ends when the handler returns, with the handler's error if it returns one. A handler
/// can end it earlier with [`close`](BiStream::close), or keep it open with
/// [`hijack`](BiStream::hijack).
pub type ServerStream<S, R> = BiStream<AtServer, S, R>;

/// A bidirectional stream of messages (PROTOCOL section 8), which sends `S` and receives `R`.
///
/// ```
/// # use psrpc::{ClientStream, Error};
/// # async fn example(stream: ClientStream<String, String>) -> Result<(), Error> {
/// stream.send("hello".to_owned()).await?;
/// while let Some(message) = stream.next().await {
///     println!("{message}");
/// }
/// println!("ended: {:?}", stream.cause());
/// # Ok(())
/// # }
/// ```
///
/// A send resolves once the message is in the receive queue of the other side. Messages arrive in
/// order if each send is awaited, and succeeds, before the next one starts. No message arrives
/// twice.
///
/// # Back-pressure
///
/// The receive queue has [a limit](crate::ClientOptions::unread_per_stream). A message beyond it is
/// held back until the consumer takes another one, so a slow consumer slows its sender down.
/// [`SlowConsumer`](crate::SlowConsumer) selects other policies; a Go receiver discards the
/// message, and its send fails when it times out.
///
/// The number of messages on their way is limited by a window. Further sends wait for a place in
/// it, in order. The window grows by one with each message that is accepted, from 64 up to
/// [`sends_per_stream`](crate::StreamLimits::sends_per_stream), and halves with each message that
/// is not accepted in time.
///
/// # The end
///
/// Either side can close the stream, and both sides see the cause. The stream also ends when its
/// client or server is closed, when the server shuts down or deregisters the method (`unavailable`,
/// "EOF"), and when the idle timeout passes, if one is set. Messages received before the end remain
/// available.
///
/// Dropping the stream closes it without an error. A handler's stream ends with the handler's
/// result instead.
pub struct BiStream<A, S, R> {
    end: Arc<dyn StreamEnd>,
    at: A,
    /// The waker of the task that polls this value as a `Stream`.
    waiter: WaiterKey,
    messages: PhantomData<fn(S) -> R>,
}

/// A marker for the client's side of a stream.
#[derive(Debug)]
pub struct AtClient(());

/// A marker for the server's side of a stream, with the request that opened it.
pub struct AtServer {
    context: RequestContext,
}

/// Returns the next message of a stream, or `None` once the stream has ended and all messages were
/// taken.
async fn next<R: Message + Default + 'static>(end: &dyn StreamEnd) -> Option<R> {
    let mut waiter = StreamWaiter::new(end, Awaited::Message);
    poll_fn(|cx| poll_next(end, &mut waiter.key, cx)).await
}

fn poll_next<R: Message + Default + 'static>(
    end: &dyn StreamEnd,
    waiter: &mut WaiterKey,
    cx: &Context<'_>,
) -> Poll<Option<R>> {
    loop {
        let Some(message) = std::task::ready!(end.poll_message(waiter, cx)) else {
            return Poll::Ready(None);
        };
        // The type was checked before. This can fail only if an interceptor has kept a clone, since
        // the message is then copied by encoding and decoding it.
        if let Ok(message) = message.into_message() {
            return Poll::Ready(Some(message));
        }
    }
}

impl<S, R> ClientStream<S, R> {
    pub(crate) fn new(end: Arc<dyn StreamEnd>) -> Self {
        Self { end, at: AtClient(()), waiter: WaiterKey::default(), messages: PhantomData }
    }
}

impl<S, R> ServerStream<S, R> {
    pub(crate) fn at_server(end: Arc<dyn StreamEnd>, context: RequestContext) -> Self {
        Self { end, at: AtServer { context }, waiter: WaiterKey::default(), messages: PhantomData }
    }

    /// Returns the metadata that the client sent when it opened the stream.
    pub fn metadata(&self) -> &Metadata {
        &self.at.context.metadata
    }

    /// Returns the id of the client that opened the stream.
    pub fn client_id(&self) -> &str {
        self.at.context.client_id.as_str()
    }

    /// Returns the id of the request that opened the stream.
    pub fn request_id(&self) -> &str {
        self.at.context.request_id.as_str()
    }

    /// Returns when the client sent the request to open the stream, by the client's wall clock.
    pub fn sent_at(&self) -> WallTime {
        self.at.context.sent_at
    }

    /// Returns the parts of the topic. Empty for a method without topics.
    pub fn topic(&self) -> &[Text] {
        self.at.context.route.topic()
    }

    /// Keeps the stream open after its handler has returned. The stream then ends when it is closed
    /// or dropped. If the handler returns an error, the stream still ends.
    ///
    /// Drop the stream once it has ended, since a shutdown and a deregistration of its method wait
    /// for it.
    ///
    /// ```
    /// # use psrpc::{Error, Runtime, ServerStream};
    /// # async fn handler(stream: ServerStream<String, String>, runtime: impl Runtime) -> Result<(), Error> {
    /// stream.hijack();
    /// runtime.spawn(Box::pin(async move { while stream.next().await.is_some() {} }));
    /// Ok(())
    /// # }
    /// ```
    pub fn hijack(&self) {
        self.end.hijack();
    }
}

impl<S, R> within::sealed::HandlerInput for ServerStream<S, R> {
    fn scope(&self) -> Scope {
        let RequestContext { token, runtime, metadata, .. } = &self.at.context;
        Scope::new(token, None, runtime, metadata)
    }
}

impl<A, S: Message + 'static, R: Message + Default + 'static> BiStream<A, S, R> {
    /// Sends a message. The send resolves once the other side has accepted it. See [`PendingSend`].
    pub fn send(&self, message: S) -> PendingSend<'_> {
        PendingSend::new(&self.end, message)
    }

    /// Returns the next message, or `None` once the stream has ended and all messages were taken.
    /// Cancel safe: dropping the future loses no message.
    pub async fn next(&self) -> Option<R> {
        next(&*self.end).await
    }

    /// Splits the stream into two halves, for use in two tasks. The stream is dropped once both
    /// halves are.
    pub fn split(self) -> (SendHalf<S>, RecvHalf<R>) {
        let end = Arc::clone(&self.end);
        (
            SendHalf { end, messages: PhantomData },
            RecvHalf { end: self.end, waiter: self.waiter, messages: PhantomData },
        )
    }
}

impl<A, S, R> BiStream<A, S, R> {
    /// Ends the stream on both sides, with the given cause, or with "stream closed" (`canceled`) if
    /// there is none. The code and text of the cause are sent. Pending sends fail. Does nothing if
    /// the stream has already ended.
    pub fn close(&self, cause: impl Into<Option<Error>>) {
        close(&*self.end, cause.into());
    }

    /// Returns why the stream has ended, or `None` if it has not.
    pub fn cause(&self) -> Option<Error> {
        self.end.cause()
    }

    /// Waits until the stream has ended, and returns the cause. There may still be messages to
    /// take.
    pub async fn closed(&self) -> Error {
        closed(&*self.end).await
    }

    /// Returns the service, method and topic of the stream.
    pub fn info(&self) -> &CallInfo {
        self.end.codec().info()
    }
}

fn close(end: &dyn StreamEnd, cause: Option<Error>) {
    end.close(cause.map(Error::into_response));
}

fn debug(end: &dyn StreamEnd, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.debug_struct("Stream").field("info", end.codec().info()).field("cause", &end.cause()).finish()
}

/// Yields the messages that [`next`](BiStream::next) returns.
impl<A: Unpin, S, R: Message + Default + 'static> Stream for BiStream<A, S, R> {
    type Item = R;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<R>> {
        let Self { end, waiter, .. } = &mut *self;
        poll_next(&**end, waiter, cx)
    }
}

/// The sending half of a stream.
pub struct SendHalf<S> {
    end: Arc<dyn StreamEnd>,
    messages: PhantomData<fn(S)>,
}

impl<S: Message + 'static> SendHalf<S> {
    /// Sends a message. The send resolves once the other side has accepted it. See [`PendingSend`].
    pub fn send(&self, message: S) -> PendingSend<'_> {
        PendingSend::new(&self.end, message)
    }

    /// Returns a [`Sink`](futures_sink::Sink) of messages.
    pub fn into_sink(self) -> SendSink<S> {
        SendSink::new(self)
    }
}

impl<S> SendHalf<S> {
    /// Ends the stream, as [`BiStream::close`] does.
    pub fn close(&self, cause: impl Into<Option<Error>>) {
        close(&*self.end, cause.into());
    }

    /// Returns why the stream has ended, or `None` if it has not.
    pub fn cause(&self) -> Option<Error> {
        self.end.cause()
    }

    /// Waits until the stream has ended, and returns the cause.
    pub async fn closed(&self) -> Error {
        closed(&*self.end).await
    }
}

/// The receiving half of a stream.
pub struct RecvHalf<R> {
    end: Arc<dyn StreamEnd>,
    waiter: WaiterKey,
    messages: PhantomData<fn() -> R>,
}

impl<R: Message + Default + 'static> RecvHalf<R> {
    /// Returns the next message, or `None` once the stream has ended and all messages were taken.
    /// Cancel safe: dropping the future loses no message.
    pub async fn next(&self) -> Option<R> {
        next(&*self.end).await
    }
}

impl<R> RecvHalf<R> {
    /// Returns why the stream has ended, or `None` if it has not.
    pub fn cause(&self) -> Option<Error> {
        self.end.cause()
    }
}

/// Yields the messages that [`next`](RecvHalf::next) returns.
impl<R: Message + Default + 'static> Stream for RecvHalf<R> {
    type Item = R;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<R>> {
        let Self { end, waiter, .. } = &mut *self;
        poll_next(&**end, waiter, cx)
    }
}

impl fmt::Debug for AtServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AtServer").field("client_id", &self.context.client_id).finish_non_exhaustive()
    }
}

impl<A, S, R> fmt::Debug for BiStream<A, S, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        debug(&*self.end, f)
    }
}

impl<S> fmt::Debug for SendHalf<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        debug(&*self.end, f)
    }
}

impl<R> fmt::Debug for RecvHalf<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        debug(&*self.end, f)
    }
}
