//! Interceptors of streams.

use std::sync::Arc;
use std::time::Duration;

use psrpc_engine::Time;

use super::call::CallOptions;
use crate::error::Error;
use crate::info::{CallInfo, Side};
use crate::message::AnyMessage;
use crate::runtime::{BoxFuture, Runtime};

/// An interceptor of the streams of a client or a server. It can change how a stream is opened,
/// refuse it, and intercept its messages.
///
/// Functions are interceptors too:
///
/// ```
/// use psrpc::{AnyMessage, ClientOptions, Error, ErrorCode, OpeningStream, InterceptedStream};
///
/// struct NoEmptyMessages;
///
/// impl InterceptedStream for NoEmptyMessages {
///     fn receive(&self, message: AnyMessage) -> Result<AnyMessage, Error> {
///         match message.encoded_len() {
///             0 => Err(Error::new(ErrorCode::InvalidArgument, "empty")),
///             _ => Ok(message),
///         }
///     }
/// }
///
/// let options = ClientOptions::new().stream_interceptor(|opening: &mut OpeningStream| {
///     opening.options.metadata.insert("shop", "corner");
///     Ok(Box::new(NoEmptyMessages) as Box<dyn InterceptedStream>)
/// });
/// ```
///
/// The first interceptor added to a client or server is the outermost. It is the first to see the
/// opening, each message in either direction, and the end. Interceptors of a single stream
/// ([`OpenStream::interceptor`](crate::OpenStream::interceptor)) run inside those of the client.
pub trait StreamInterceptor: Send + Sync + 'static {
    /// Returns the intercepted stream. Called in the client before the request is sent, and in the
    /// server after the stream is granted and before its handler runs.
    ///
    /// In the client it runs on the caller's task, and a panic propagates to the caller. In the
    /// server it runs on the background task, and must not block; a panic ends the stream with
    /// `internal`.
    ///
    /// # Errors
    ///
    /// Returns an error to refuse the stream. In the client, the opening fails with that error and
    /// nothing is sent. In the server, the stream ends with that error and no handler runs.
    /// Interceptors further in are not called.
    fn open(&self, opening: &mut OpeningStream) -> Result<Box<dyn InterceptedStream>, Error>;
}

impl<F> StreamInterceptor for F
where
    F: Fn(&mut OpeningStream) -> Result<Box<dyn InterceptedStream>, Error> + Send + Sync + 'static,
{
    fn open(&self, opening: &mut OpeningStream) -> Result<Box<dyn InterceptedStream>, Error> {
        self(opening)
    }
}

/// A stream that is being opened, on its way through the interceptors.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct OpeningStream {
    /// The options of the opening. In the server only the metadata matters, which is passed to the
    /// handler.
    pub options: CallOptions,
    info: CallInfo,
    side: Side,
}

impl OpeningStream {
    pub(crate) fn new(info: CallInfo, side: Side, options: CallOptions) -> Self {
        Self { options, info, side }
    }

    /// Returns the service, method and topic of the stream.
    pub fn info(&self) -> &CallInfo {
        &self.info
    }

    /// Returns the side on which the interceptor runs.
    pub fn side(&self) -> Side {
        self.side
    }
}

/// One stream as seen by an interceptor. The default implementations pass everything on.
///
/// [`opened`](Self::opened) and [`closed`](Self::closed) are called at most once, in this order. If
/// the opening is dropped or panics, the value is dropped and neither is called.
pub trait InterceptedStream: Send + Sync + 'static {
    /// Called when the stream is open. The stream may have ended by then. Must not block.
    fn opened(&self) {}

    /// Sends a message through `next`: once, several times or not at all. Runs on the sender's
    /// task, and a panic propagates to the sender.
    fn send(
        &self,
        message: AnyMessage,
        options: SendOptions,
        next: NextSend,
    ) -> BoxFuture<Result<(), Error>> {
        next.run(message, options)
    }

    /// Receives a message before its consumer does. Runs on a background task, or on the task that
    /// takes messages, and must not block.
    ///
    /// If this returns an error, panics, or returns a message that is not of the method's type, the
    /// message is not delivered and its sender is not notified. The stream continues.
    fn receive(&self, message: AnyMessage) -> Result<AnyMessage, Error> {
        Ok(message)
    }

    /// Called when the stream has ended, or could not be opened because it was refused or timed
    /// out. Messages that are being sent or received at that time may still pass. Must not block.
    fn closed(&self, cause: &Error) {
        let _ = cause;
    }
}

/// Options of a message sent on a stream.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct SendOptions {
    /// How long the send may take; `None` for the default of the client or server.
    pub timeout: Option<Duration>,
    /// The time at which the sender gives up, on the monotonic clock of the runtime. The earlier of
    /// this and the timeout applies.
    pub deadline: Option<Time>,
    /// Whether [`Retry`](crate::middleware::Retry) set the timeout, and not the sender.
    pub(crate) retry_set_timeout: bool,
}

/// The rest of the chain: the next intercepted stream, or the stream itself. Cheap to clone.
#[derive(Clone)]
pub struct NextSend {
    chain: Arc<dyn SendChain>,
    position: usize,
}

/// A stream and the interceptors around it, as seen by a send.
pub(crate) trait SendChain: Send + Sync {
    /// Returns the intercepted stream at a position, starting with the outermost.
    fn intercepted(&self, position: usize) -> Option<&dyn InterceptedStream>;
    /// Sends a message without interceptors. A message that is not of the method's type fails with
    /// `internal`.
    fn send(self: Arc<Self>, message: AnyMessage, options: SendOptions) -> BoxFuture<Result<(), Error>>;
    /// Returns why the stream has ended, or `None` if it has not.
    fn cause(&self) -> Option<Error>;
    /// Waits until the stream has ended, and returns the cause.
    fn closed(self: Arc<Self>) -> BoxFuture<Error>;
    fn runtime(&self) -> &Arc<dyn Runtime>;
}

impl NextSend {
    /// Returns the outermost position of a chain.
    pub(crate) fn new(chain: Arc<dyn SendChain>) -> Self {
        Self { chain, position: 0 }
    }

    /// Sends the message, once for each call of this function. A message that is not of the
    /// method's type fails with `internal`.
    pub fn run(&self, message: AnyMessage, options: SendOptions) -> BoxFuture<Result<(), Error>> {
        let chain = Arc::clone(&self.chain);
        match self.chain.intercepted(self.position) {
            Some(stream) => stream.send(message, options, Self { chain, position: self.position + 1 }),
            None => chain.send(message, options),
        }
    }

    /// Returns why the stream has ended, or `None` if it has not.
    pub fn cause(&self) -> Option<Error> {
        self.chain.cause()
    }

    /// Waits until the stream has ended, and returns the cause.
    pub async fn closed(&self) -> Error {
        Arc::clone(&self.chain).closed().await
    }

    /// Returns the runtime of the client or server, for its clock and timers.
    pub fn runtime(&self) -> &Arc<dyn Runtime> {
        self.chain.runtime()
    }
}

impl std::fmt::Debug for NextSend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NextSend").field("position", &self.position).finish_non_exhaustive()
    }
}
