//! Metrics: what is measured of calls, handlers and streams, for an observer to count.

use std::sync::Arc;
use std::time::Duration;

use psrpc_engine::Time;
use psrpc_engine::proto::ErrorCode;

use crate::runtime::{BoxFuture, Runtime};
use crate::{
    AnyMessage, CallInfo, CallInterceptor, ClientOptions, Error, HandlerInterceptor, NextCall, NextHandler,
    Outgoing, Request, ServerOptions, guard,
};

/// On which side of a call something was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// In the client.
    Client,
    /// In the server.
    Server,
}

/// Takes measurements. Each function does nothing unless it is implemented.
///
/// It runs where the call or handler does, which it must not block. Bytes are those of the users' messages, without what the
/// protocol adds.
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

    /// A multi call has ended in the client, or its handler in one server.
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

    /// A message of so many bytes was received on a stream.
    fn stream_received(&self, side: Side, info: &CallInfo, bytes: usize) {
        let _ = (side, info, bytes);
    }

    /// A stream has ended.
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
    /// How it ended: `canceled` when it was dropped, or its handler stopped; `internal` when the handler panicked.
    pub result: Result<(), &'a Error>,
    /// The bytes of the message that was sent: the request in the client, the answer in the server.
    pub bytes_sent: usize,
    /// The bytes of the message that was received: the answer in the client, the request in the server.
    pub bytes_received: usize,
}

/// What was measured of a multi call, or of the handler of one, which gives one answer or one error.
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
    /// Whether the other side took it.
    pub result: Result<(), &'a Error>,
    /// Its bytes.
    pub bytes: usize,
}

impl ClientOptions {
    /// Measures calls. It is an interceptor, and has its place among the others: what is added later is within what it
    /// measures.
    #[must_use]
    pub fn metrics(self, observer: impl MetricsObserver) -> Self {
        self.interceptor(Metrics(Arc::new(observer)))
    }
}

impl ServerOptions {
    /// Measures handlers. It is an interceptor, and has its place among the others: what is added later is within what it
    /// measures.
    #[must_use]
    pub fn metrics(self, observer: impl MetricsObserver) -> Self {
        self.interceptor(Metrics(Arc::new(observer)))
    }
}

/// The interceptor that measures.
struct Metrics(Arc<dyn MetricsObserver>);

impl CallInterceptor for Metrics {
    fn call(&self, call: Outgoing, next: NextCall) -> BoxFuture<Result<AnyMessage, Error>> {
        let (info, bytes) = (call.info().clone(), call.message.encoded_len());
        let measuring = Measuring::start(&self.0, Side::Client, info, bytes, next.runtime());
        Box::pin(async move { measuring.end(next.run(call).await) })
    }
}

impl HandlerInterceptor for Metrics {
    fn handle(
        &self,
        request: Request<AnyMessage>,
        next: NextHandler,
    ) -> BoxFuture<Result<AnyMessage, Error>> {
        let (info, bytes) = (request.info(), request.encoded_len());
        let measuring = Measuring::start(&self.0, Side::Server, info, bytes, request.runtime());
        Box::pin(async move { measuring.end(next.run(request).await) })
    }
}

/// A call or a handler on its way. Dropped before it has ended it is reported as what ended it.
struct Measuring {
    observer: Arc<dyn MetricsObserver>,
    side: Side,
    info: CallInfo,
    request: usize,
    started: Time,
    runtime: Arc<dyn Runtime>,
    ended: bool,
}

impl Measuring {
    fn start(
        observer: &Arc<dyn MetricsObserver>,
        side: Side,
        info: CallInfo,
        request: usize,
        runtime: &Arc<dyn Runtime>,
    ) -> Self {
        let (observer, runtime) = (Arc::clone(observer), Arc::clone(runtime));
        Self { observer, side, info, request, started: runtime.now().time, runtime, ended: false }
    }

    fn end(mut self, result: Result<AnyMessage, Error>) -> Result<AnyMessage, Error> {
        self.ended = true;
        self.report(result.as_ref());
        result
    }

    fn report(&self, result: Result<&AnyMessage, &Error>) {
        let answer = result.map_or(0, AnyMessage::encoded_len);
        let (bytes_sent, bytes_received) = match self.side {
            Side::Client => (self.request, answer),
            Side::Server => (answer, self.request),
        };
        let duration = self.runtime.now().time.since(self.started);
        let Self { observer, side, info, .. } = self;
        if info.is_multi() {
            let (answers, errors) = (result.is_ok().into(), result.is_err().into());
            let call = MultiCall { duration, answers, errors, bytes_sent, bytes_received };
            observer.multi_call(*side, info, &call);
        } else {
            let result = result.map(drop);
            observer.unary_call(*side, info, &UnaryCall { duration, result, bytes_sent, bytes_received });
        }
    }
}

impl Drop for Measuring {
    fn drop(&mut self) {
        if !self.ended {
            let error = match std::thread::panicking() {
                true => Error::new(ErrorCode::Internal, "panicked"),
                false => Error::new(ErrorCode::Canceled, "request canceled"),
            };
            // A second panic would end the process.
            guard::catch(|| self.report(Err(&error)));
        }
    }
}
