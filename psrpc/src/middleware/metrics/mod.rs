//! Metrics: what is measured of calls, handlers and streams, for an observer to count.

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

/// Takes measurements. Each function does nothing unless it is implemented.
///
/// It runs where the call, handler or stream does, which it must not block. Bytes are those of the
/// users' messages, without what the protocol adds.
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
    /// A unary call has ended in the client, or its handler in the server.
    fn unary_call(&self, side: Side, info: &CallInfo, call: &UnaryCall<'_>) {
        let _ = (side, info, call);
    }

    /// The answers of a multi call have ended in the client, or were dropped, or its handler has
    /// ended in one server.
    fn multi_call(&self, side: Side, info: &CallInfo, call: &MultiCall) {
        let _ = (side, info, call);
    }

    /// A stream was opened.
    fn stream_opened(&self, side: Side, info: &CallInfo) {
        let _ = (side, info);
    }

    /// A message was sent on a stream, or could not be.
    fn stream_sent(&self, side: Side, info: &CallInfo, sent: &StreamSent<'_>) {
        let _ = (side, info, sent);
    }

    /// A message of so many bytes was received on a stream, for its consumer to take.
    fn stream_received(&self, side: Side, info: &CallInfo, bytes: usize) {
        let _ = (side, info, bytes);
    }

    /// A stream that was opened has ended.
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

/// What was measured of a unary call, or of the handler of one.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct UnaryCall<'a> {
    /// How long it took.
    pub duration: Duration,
    /// How it ended: `canceled` when it was dropped, or its handler stopped; `internal` when the
    /// handler panicked.
    pub result: Result<(), &'a Error>,
    /// The bytes of the message that was sent: the request in the client, the answer in the server.
    pub bytes_sent: usize,
    /// The bytes of the message that was received: the answer in the client, the request in the
    /// server.
    pub bytes_received: usize,
}

/// What was measured of a multi call, or of the handler of one, which gives one answer or one
/// error.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct MultiCall {
    /// How long it took.
    pub duration: Duration,
    /// How many answers there were.
    pub answers: u64,
    /// How many errors there were.
    pub errors: u64,
    /// The bytes of all messages that were sent.
    pub bytes_sent: usize,
    /// The bytes of all messages that were received.
    pub bytes_received: usize,
}

/// What was measured of a message that was sent on a stream.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct StreamSent<'a> {
    /// How long it took until the other side had taken it.
    pub duration: Duration,
    /// Whether the other side took it: `canceled` when the send was dropped.
    pub result: Result<(), &'a Error>,
    /// Its bytes.
    pub bytes: usize,
}

/// The interceptor that measures.
#[derive(Clone)]
pub(crate) struct Metrics(pub(crate) Arc<dyn MetricsObserver>);

/// How long something takes.
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

/// What something ended with that was dropped before it was done.
fn drop_error() -> Error {
    match std::thread::panicking() {
        true => Error::new(ErrorCode::Internal, "panicked"),
        false => Error::new(ErrorCode::Canceled, "request canceled"),
    }
}
