//! Streams: messages both ways between a client and one server, until one side ends it.

mod codec;
mod driver_end;
mod end;
mod incoming;
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

/// A stream, as the client has it that opened it: it sends `S` and receives `R`. See [`BiStream`].
pub type ClientStream<S, R> = BiStream<AtClient, S, R>;

/// A stream, as the handler has it that serves it: it sends `S` and receives `R`. See [`BiStream`].
///
/// It ends when its handler returns: with the handler's error, or else plainly; a handler may end
/// it before with [`close`](BiStream::close). [`hijack`](BiStream::hijack) it to keep it longer.
pub type ServerStream<S, R> = BiStream<AtServer, S, R>;

/// A stream of messages both ways (PROTOCOL section 8): it sends `S` and receives `R`.
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
/// A send resolves once the other side has put the message where its `next` finds it. Messages
/// arrive in the order of their sends if each send is awaited, and has succeeded, before the next
/// begins; nothing arrives twice. So many messages wait to be received as the client or server has
/// [room for](crate::ClientOptions::channel_size); one more is not taken, and its sender
/// waits until its timeout.
///
/// # The end
///
/// Either side closes it; both see the cause. It ends too when its client or server is closed, when
/// the server shuts down or stops to serve the method (`unavailable`, "EOF"), and, if that was set,
/// when nothing was heard for too long. What was received before the end can still be taken.
///
/// Dropping it closes it plainly; a handler's stream ends with its handler's result instead.
pub struct BiStream<A, S, R> {
    end: Arc<dyn StreamEnd>,
    at: A,
    /// Of the task that polls it as a stream.
    waiter: WaiterKey,
    messages: PhantomData<fn(S) -> R>,
}

/// What the client's side of a stream knows.
#[derive(Debug)]
pub struct AtClient(());

/// What the server's side of a stream knows: the request that opened it.
pub struct AtServer {
    context: RequestContext,
}

/// Returns the next message of a stream; `None` when it has ended and all were taken.
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
        // Its type was checked, but it may be a copy, by way of its encoding.
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

    /// What the client sent along when it opened the stream.
    pub fn metadata(&self) -> &Metadata {
        &self.at.context.metadata
    }

    /// Who opened the stream.
    pub fn client_id(&self) -> &str {
        self.at.context.client_id.as_str()
    }

    /// The request that opened the stream, by its id on the wire.
    pub fn request_id(&self) -> &str {
        self.at.context.request_id.as_str()
    }

    /// When the stream was asked for, by the client's wall clock.
    pub fn sent_at(&self) -> WallTime {
        self.at.context.sent_at
    }

    /// The topic that it was opened for; no parts for a method without topics.
    pub fn topic(&self) -> &[Text] {
        self.at.context.route.topic()
    }

    /// Keeps the stream beyond the return of its handler: it then ends when it is closed or
    /// dropped. A handler that returns an error ends it all the same.
    ///
    /// Whoever keeps it lets it go once it has ended: a shutdown waits for it, and so does who
    /// deregisters its method.
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

impl<A, S: Message + 'static, R: Message + Default + 'static> BiStream<A, S, R> {
    /// Sends a message: resolves when the other side has taken it. See [`PendingSend`].
    pub fn send(&self, message: S) -> PendingSend<'_> {
        PendingSend::new(&self.end, message)
    }

    /// The next message; `None` when the stream has ended and all were taken. Dropping the future
    /// loses nothing.
    pub async fn next(&self) -> Option<R> {
        next(&*self.end).await
    }

    /// Two halves, for two tasks. The stream is dropped when both are.
    pub fn split(self) -> (SendHalf<S>, RecvHalf<R>) {
        let end = Arc::clone(&self.end);
        (
            SendHalf { end, messages: PhantomData },
            RecvHalf { end: self.end, waiter: self.waiter, messages: PhantomData },
        )
    }
}

impl<A, S, R> BiStream<A, S, R> {
    /// Ends the stream on both sides, with this cause, or plainly: "stream closed", `canceled`. The
    /// code and text of the cause travel. What is being sent fails. Does nothing if it has
    /// ended.
    pub fn close(&self, cause: impl Into<Option<Error>>) {
        close(&*self.end, cause.into());
    }

    /// Why the stream has ended, if it has.
    pub fn cause(&self) -> Option<Error> {
        self.end.cause()
    }

    /// Resolves with the cause when the stream has ended, which may be before all messages were
    /// taken.
    pub async fn closed(&self) -> Error {
        closed(&*self.end).await
    }

    /// What the stream was opened for.
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

/// Its messages, as [`next`](BiStream::next) gives them.
impl<A: Unpin, S, R: Message + Default + 'static> Stream for BiStream<A, S, R> {
    type Item = R;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<R>> {
        let Self { end, waiter, .. } = &mut *self;
        poll_next(&**end, waiter, cx)
    }
}

/// The half of a stream that sends.
pub struct SendHalf<S> {
    end: Arc<dyn StreamEnd>,
    messages: PhantomData<fn(S)>,
}

impl<S: Message + 'static> SendHalf<S> {
    /// Sends a message: resolves when the other side has taken it. See [`PendingSend`].
    pub fn send(&self, message: S) -> PendingSend<'_> {
        PendingSend::new(&self.end, message)
    }

    /// A [`Sink`](futures_sink::Sink) of messages.
    pub fn into_sink(self) -> SendSink<S> {
        SendSink::new(self)
    }
}

impl<S> SendHalf<S> {
    /// Ends the stream, as [`BiStream::close`] does.
    pub fn close(&self, cause: impl Into<Option<Error>>) {
        close(&*self.end, cause.into());
    }

    /// Why the stream has ended, if it has.
    pub fn cause(&self) -> Option<Error> {
        self.end.cause()
    }

    /// Resolves with the cause when the stream has ended.
    pub async fn closed(&self) -> Error {
        closed(&*self.end).await
    }
}

/// The half of a stream that receives.
pub struct RecvHalf<R> {
    end: Arc<dyn StreamEnd>,
    waiter: WaiterKey,
    messages: PhantomData<fn() -> R>,
}

impl<R: Message + Default + 'static> RecvHalf<R> {
    /// The next message; `None` when the stream has ended and all were taken. Dropping the future
    /// loses nothing.
    pub async fn next(&self) -> Option<R> {
        next(&*self.end).await
    }
}

impl<R> RecvHalf<R> {
    /// Why the stream has ended, if it has.
    pub fn cause(&self) -> Option<Error> {
        self.end.cause()
    }
}

/// Its messages, as [`next`](RecvHalf::next) gives them.
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
