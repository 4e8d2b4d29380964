//! Interceptors of streams, on both sides.

use std::sync::Arc;
use std::time::Duration;

use psrpc_engine::Time;

use super::call::CallOptions;
use crate::error::Error;
use crate::info::{CallInfo, Side};
use crate::message::AnyMessage;
use crate::runtime::{BoxFuture, Runtime};

/// Code around the streams of a client or a server: it may change how a stream is opened, refuse
/// it, and put a layer around its messages.
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
/// The first that a client or server was given is the outermost: it sees the opening first, what is
/// sent first, what is received first, and the end first. Those of a single stream
/// ([`OpenStream::interceptor`](crate::OpenStream::interceptor)) are within those of the client.
pub trait StreamInterceptor: Send + Sync + 'static {
    /// Gives what is around a stream that is being opened: in the client before the request is
    /// sent, in the server when the stream was granted and before its handler runs.
    ///
    /// In the client it runs on the caller's task, to whom a panic in it goes. In the server it
    /// runs on the background task, which it must not block; a panic in it ends the stream with
    /// `internal`.
    ///
    /// # Errors
    ///
    /// Whatever it refuses the stream for. In the client the opening fails with it, and nothing was sent; in the server the stream
    /// ends with it, and no handler runs. Interceptors further in are not asked.
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
    /// How it is opened. In the server only the metadata counts, which the handler gets.
    pub options: CallOptions,
    info: CallInfo,
    side: Side,
}

impl OpeningStream {
    pub(crate) fn new(info: CallInfo, side: Side, options: CallOptions) -> Self {
        Self { options, info, side }
    }

    /// What it is opened for.
    pub fn info(&self) -> &CallInfo {
        &self.info
    }

    /// On which side.
    pub fn side(&self) -> Side {
        self.side
    }
}

/// What an interceptor puts around one stream. Each function passes on what it gets unless it is
/// implemented.
///
/// It hears at most once that the stream is open, and then once of its end. A stream whose opening is dropped, or ends with a panic,
/// drops its layers, and tells them nothing.
pub trait InterceptedStream: Send + Sync + 'static {
    /// The stream is open, or was until just now. It must not block.
    fn opened(&self) {}

    /// Sends a message, by way of `next`, once, several times or not at all. It runs on the
    /// sender's task, to whom a panic in it goes.
    fn send(
        &self,
        message: AnyMessage,
        options: SendOptions,
        next: NextSend,
    ) -> BoxFuture<Result<(), Error>> {
        next.run(message, options)
    }

    /// Takes a message that came in, before its consumer does. With an error, or a panic, the
    /// message is not delivered, and its sender hears nothing; the stream goes on. So it is
    /// with a message that is not of the method's type. It runs on a background task, which it
    /// must not block.
    fn receive(&self, message: AnyMessage) -> Result<AnyMessage, Error> {
        Ok(message)
    }

    /// The stream has ended, or does not come to be open, since it was refused or timed out.
    /// Messages that are being sent or received meanwhile may still pass. It must not block.
    fn closed(&self, cause: &Error) {
        let _ = cause;
    }
}

/// Options of a message that is sent on a stream.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct SendOptions {
    /// How long it may take; `None` for the default of the client or server.
    pub timeout: Option<Duration>,
    /// When its sender gives up, on the monotonic clock of the runtime, if that is earlier.
    pub deadline: Option<Time>,
    /// Whether [`Retry`](crate::middleware::Retry) has set the timeout, and not the sender.
    pub(crate) retry_set_timeout: bool,
}

/// What a layer is around: the next one, or at last the stream. Cheap to clone.
#[derive(Clone)]
pub struct NextSend {
    chain: Arc<dyn SendChain>,
    position: usize,
}

/// A stream and the layers around it, as a message that is sent needs them.
pub(crate) trait SendChain: Send + Sync {
    /// Returns the layer at a position, the outermost first.
    fn intercepted(&self, position: usize) -> Option<&dyn InterceptedStream>;
    /// Sends a message past all layers. A message that is not of the method's type fails with `internal`.
    fn send(self: Arc<Self>, message: AnyMessage, options: SendOptions) -> BoxFuture<Result<(), Error>>;
    /// Why the stream has ended, if it has.
    fn cause(&self) -> Option<Error>;
    /// Resolves with the cause when the stream has ended.
    fn closed(self: Arc<Self>) -> BoxFuture<Error>;
    fn runtime(&self) -> &Arc<dyn Runtime>;
}

impl NextSend {
    /// The outermost layer of a stream.
    pub(crate) fn new(chain: Arc<dyn SendChain>) -> Self {
        Self { chain, position: 0 }
    }

    /// Sends the message, once for each time that this is run. A message that is not of the
    /// method's type fails with `internal`.
    pub fn run(&self, message: AnyMessage, options: SendOptions) -> BoxFuture<Result<(), Error>> {
        let chain = Arc::clone(&self.chain);
        match self.chain.intercepted(self.position) {
            Some(stream) => stream.send(message, options, Self { chain, position: self.position + 1 }),
            None => chain.send(message, options),
        }
    }

    /// Why the stream has ended, if it has.
    pub fn cause(&self) -> Option<Error> {
        self.chain.cause()
    }

    /// Resolves with the cause when the stream has ended.
    pub async fn closed(&self) -> Error {
        Arc::clone(&self.chain).closed().await
    }

    /// The runtime of the client or server, for its clock and to sleep.
    pub fn runtime(&self) -> &Arc<dyn Runtime> {
        self.chain.runtime()
    }
}

impl std::fmt::Debug for NextSend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NextSend").field("position", &self.position).finish_non_exhaustive()
    }
}
