//! Metrics of calls, handlers and streams.

mod calls;
mod multi;
mod streams;

use std::sync::Arc;
use std::time::Duration;

use psrpc_engine::Time;
use psrpc_engine::proto::ErrorCode;

use crate::error::Error;
use crate::info::{CallInfo, Side};
use crate::runtime::Runtime;

/// A receiver of measurements of calls, handlers and streams. The default implementations do
/// nothing.
///
/// The functions run where the call, handler or stream runs, and must not block. Byte counts are
/// those of the users' messages, without protocol overhead.
///
/// ```
/// use psrpc::middleware::{MetricsObserver, Side, UnaryCall};
/// use psrpc::{CallInfo, ClientOptions};
///
/// struct Print;
///
/// impl MetricsObserver for Print {
///     fn unary_call(&self, _: Side, info: &CallInfo, call: &UnaryCall<'_>) {
///         println!("{info} took {:?}, {} bytes came back", call.duration, call.bytes_received);
///     }
/// }
///
/// let options = ClientOptions::new().metrics(Print);
/// ```
pub trait MetricsObserver: Send + Sync + 'static {
    /// Called when a unary call ends in the client, or its handler in the server.
    fn unary_call(&self, side: Side, info: &CallInfo, call: &UnaryCall<'_>) {
        let _ = (side, info, call);
    }

    /// Called in the client when the responses of a multi call end or are dropped, and in each
    /// server when the handler ends.
    fn multi_call(&self, side: Side, info: &CallInfo, call: &MultiCall) {
        let _ = (side, info, call);
    }

    /// Called when a stream was opened.
    fn stream_opened(&self, side: Side, info: &CallInfo) {
        let _ = (side, info);
    }

    /// Called when a send on a stream has succeeded or failed.
    fn stream_sent(&self, side: Side, info: &CallInfo, sent: &StreamSent<'_>) {
        let _ = (side, info, sent);
    }

    /// Called when a message of `bytes` bytes was received on a stream, before its consumer takes
    /// it.
    fn stream_received(&self, side: Side, info: &CallInfo, bytes: usize) {
        let _ = (side, info, bytes);
    }

    /// Called when a stream that was opened has ended.
    fn stream_closed(&self, side: Side, info: &CallInfo) {
        let _ = (side, info);
    }
}

impl<O: MetricsObserver + ?Sized> MetricsObserver for Arc<O> {
    fn unary_call(&self, side: Side, info: &CallInfo, call: &UnaryCall<'_>) {
        (**self).unary_call(side, info, call);
    }

    fn multi_call(&self, side: Side, info: &CallInfo, call: &MultiCall) {
        (**self).multi_call(side, info, call);
    }

    fn stream_opened(&self, side: Side, info: &CallInfo) {
        (**self).stream_opened(side, info);
    }

    fn stream_sent(&self, side: Side, info: &CallInfo, sent: &StreamSent<'_>) {
        (**self).stream_sent(side, info, sent);
    }

    fn stream_received(&self, side: Side, info: &CallInfo, bytes: usize) {
        (**self).stream_received(side, info, bytes);
    }

    fn stream_closed(&self, side: Side, info: &CallInfo) {
        (**self).stream_closed(side, info);
    }
}

/// The measurements of a unary call, or of its handler.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct UnaryCall<'a> {
    /// The duration of the call or handler.
    pub duration: Duration,
    /// The result: `canceled` if the call was dropped or its handler stopped, `internal` if the
    /// handler panicked.
    pub result: Result<(), &'a Error>,
    /// The size of the message that was sent, in bytes: the request in the client, the response in
    /// the server.
    pub bytes_sent: usize,
    /// The size of the message that was received, in bytes: the response in the client, the request
    /// in the server.
    pub bytes_received: usize,
}

/// The measurements of a multi call, or of its handler, which returns one response or one error.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct MultiCall {
    /// The duration of the call or handler.
    pub duration: Duration,
    /// The number of responses.
    pub responses: u64,
    /// The number of errors.
    pub errors: u64,
    /// The size of all messages that were sent, in bytes.
    pub bytes_sent: usize,
    /// The size of all messages that were received, in bytes.
    pub bytes_received: usize,
}

/// The measurements of a message sent on a stream.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct StreamSent<'a> {
    /// The time until the other side accepted the message.
    pub duration: Duration,
    /// The result of the send: `canceled` if it was dropped.
    pub result: Result<(), &'a Error>,
    /// The size of the message, in bytes.
    pub bytes: usize,
}

/// The interceptor that takes measurements.
#[derive(Clone)]
pub(crate) struct Metrics(pub(crate) Arc<dyn MetricsObserver>);

/// A stopwatch.
struct Stopwatch {
    started: Time,
    runtime: Arc<dyn Runtime>,
}

impl Stopwatch {
    fn start(runtime: &Arc<dyn Runtime>) -> Self {
        Self { started: runtime.now().time, runtime: Arc::clone(runtime) }
    }

    fn elapsed(&self) -> Duration {
        self.runtime.now().time.since(self.started)
    }
}

/// Returns the error to report for something that was dropped before it ended.
fn drop_error() -> Error {
    match std::thread::panicking() {
        true => Error::new(ErrorCode::Internal, "panicked"),
        false => Error::new(ErrorCode::Canceled, "request canceled"),
    }
}
