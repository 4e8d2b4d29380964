//! Metrics of unary calls, and of the handlers of unary and multi calls.

use std::sync::Arc;

use super::{Metrics, MetricsObserver, MultiCall, Stopwatch, UnaryCall, drop_error};
use crate::error::Error;
use crate::guard;
use crate::info::{CallInfo, Side};
use crate::interceptor::{CallInterceptor, HandlerInterceptor, NextCall, NextHandler, OutgoingCall};
use crate::message::AnyMessage;
use crate::request::Request;
use crate::runtime::{BoxFuture, Runtime};

impl CallInterceptor for Metrics {
    fn call(&self, call: OutgoingCall, next: NextCall) -> BoxFuture<Result<AnyMessage, Error>> {
        let (info, bytes) = (call.info().clone(), call.message.encoded_len());
        let measured = MeasuredCall::start(&self.0, Side::Client, info, bytes, next.runtime());
        Box::pin(async move { measured.end(next.run(call).await) })
    }
}

impl HandlerInterceptor for Metrics {
    fn handle(
        &self,
        request: Request<AnyMessage>,
        next: NextHandler,
    ) -> BoxFuture<Result<AnyMessage, Error>> {
        let (info, bytes) = (request.info(), request.encoded_len());
        let measured = MeasuredCall::start(&self.0, Side::Server, info, bytes, request.runtime());
        Box::pin(async move { measured.end(next.run(request).await) })
    }
}

/// A call or handler in progress. If it is dropped early, it is reported as canceled or panicked.
struct MeasuredCall {
    observer: Arc<dyn MetricsObserver>,
    side: Side,
    info: CallInfo,
    request: usize,
    stopwatch: Stopwatch,
    ended: bool,
}

impl MeasuredCall {
    fn start(
        observer: &Arc<dyn MetricsObserver>,
        side: Side,
        info: CallInfo,
        request: usize,
        runtime: &Arc<dyn Runtime>,
    ) -> Self {
        let (observer, stopwatch) = (Arc::clone(observer), Stopwatch::start(runtime));
        Self { observer, side, info, request, stopwatch, ended: false }
    }

    fn end(mut self, result: Result<AnyMessage, Error>) -> Result<AnyMessage, Error> {
        self.ended = true;
        self.report(result.as_ref());
        result
    }

    fn report(&self, result: Result<&AnyMessage, &Error>) {
        let response = result.map_or(0, AnyMessage::encoded_len);
        let (bytes_sent, bytes_received) = match self.side {
            Side::Client => (self.request, response),
            Side::Server => (response, self.request),
        };
        let duration = self.stopwatch.elapsed();
        let Self { observer, side, info, .. } = self;
        if info.is_multi() {
            let (responses, errors) = (result.is_ok().into(), result.is_err().into());
            let call = MultiCall { duration, responses, errors, bytes_sent, bytes_received };
            observer.multi_call(*side, info, &call);
        } else {
            let result = result.map(drop);
            observer.unary_call(*side, info, &UnaryCall { duration, result, bytes_sent, bytes_received });
        }
    }
}

impl Drop for MeasuredCall {
    fn drop(&mut self) {
        if !self.ended {
            // A panic during unwinding would abort the process.
            let _ = guard::catch(|| self.report(Err(&drop_error())));
        }
    }
}
