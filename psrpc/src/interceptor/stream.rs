//! Interceptors of streams, on both sides.

use std::sync::Arc;
use std::time::Duration;

use crate::middleware::Side;
use crate::runtime::{BoxFuture, Runtime};
use crate::stream::{SendFuture, Shared};
use crate::{AnyMessage, CallInfo, ClientOptions, Error, ServerOptions};

/// Code around the streams of a client or a server.
///
/// Functions are interceptors too:
///
/// ```
/// use psrpc::middleware::Side;
/// use psrpc::{AnyMessage, CallInfo, ClientOptions, Error, ErrorCode, StreamLayer};
///
/// struct NoEmptyMessages;
///
/// impl StreamLayer for NoEmptyMessages {
///     fn receive(&self, message: AnyMessage) -> Result<AnyMessage, Error> {
///         match message.encoded_len() {
///             0 => Err(Error::new(ErrorCode::InvalidArgument, "empty")),
///             _ => Ok(message),
///         }
///     }
/// }
///
/// let options = ClientOptions::new()
///     .stream_interceptor(|_: &CallInfo, _: Side| Box::new(NoEmptyMessages) as Box<dyn StreamLayer>);
/// ```
///
/// The first that a client or server was given is the outermost. Those of a single stream
/// ([`OpenStream::interceptor`](crate::OpenStream::interceptor)) are within those of the client.
pub trait StreamInterceptor: Send + Sync + 'static {
    /// A stream is open: gives what is around it from here on. If it panics, nothing is.
    fn open(&self, info: &CallInfo, side: Side) -> Box<dyn StreamLayer>;
}

impl<F> StreamInterceptor for F
where
    F: Fn(&CallInfo, Side) -> Box<dyn StreamLayer> + Send + Sync + 'static,
{
    fn open(&self, info: &CallInfo, side: Side) -> Box<dyn StreamLayer> {
        self(info, side)
    }
}

/// What an interceptor puts around one stream. Each function passes on what it gets unless it is implemented.
pub trait StreamLayer: Send + Sync + 'static {
    /// Sends a message, by way of `next`, once, several times or not at all. It runs on the sender's task.
    fn send(
        &self,
        message: AnyMessage,
        options: SendOptions,
        next: NextSend,
    ) -> BoxFuture<Result<(), Error>> {
        next.run(message, options)
    }

    /// Takes a message that came in, before its consumer does. With an error, or a panic, the message is not delivered, and its
    /// sender hears nothing; the stream goes on. It runs on a background task, which it must not block.
    fn receive(&self, message: AnyMessage) -> Result<AnyMessage, Error> {
        Ok(message)
    }

    /// The stream has ended. It runs on a background task, which it must not block.
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
}

/// What a layer is around: the next one, or at last the stream. Cheap to clone.
#[derive(Clone)]
pub struct NextSend {
    shared: Arc<Shared>,
    position: usize,
}

impl NextSend {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, position: 0 }
    }

    /// Sends the message, once for each time that this is run.
    pub fn run(&self, message: AnyMessage, options: SendOptions) -> BoxFuture<Result<(), Error>> {
        let shared = Arc::clone(&self.shared);
        match self.shared.layers().get(self.position) {
            Some(layer) => layer.send(message, options, Self { shared, position: self.position + 1 }),
            None => Box::pin(SendFuture::past_layers(shared, message.encode_to_vec(), options)),
        }
    }

    /// The runtime of the client or server, for its clock and to sleep.
    pub fn runtime(&self) -> &Arc<dyn Runtime> {
        self.shared.runtime()
    }
}

impl std::fmt::Debug for NextSend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NextSend").field("stream", &self.shared).finish_non_exhaustive()
    }
}

impl ClientOptions {
    /// Puts an interceptor around every stream, within those that were added before.
    #[must_use]
    pub fn stream_interceptor(mut self, interceptor: impl StreamInterceptor) -> Self {
        self.around.streams.push(Arc::new(interceptor));
        self
    }
}

impl ServerOptions {
    /// Puts an interceptor around every stream, within those that were added before.
    #[must_use]
    pub fn stream_interceptor(mut self, interceptor: impl StreamInterceptor) -> Self {
        self.around.streams.push(Arc::new(interceptor));
        self
    }
}
