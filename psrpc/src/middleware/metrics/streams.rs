//! Metrics of streams, on both sides.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{Metrics, MetricsObserver, Stopwatch, StreamSent, drop_error};
use crate::error::Error;
use crate::guard;
use crate::info::{CallInfo, Side};
use crate::interceptor::{InterceptedStream, NextSend, OpeningStream, SendOptions, StreamInterceptor};
use crate::message::AnyMessage;
use crate::runtime::BoxFuture;

impl StreamInterceptor for Metrics {
    fn open(&self, opening: &mut OpeningStream) -> Result<Box<dyn InterceptedStream>, Error> {
        let (observer, info) = (Arc::clone(&self.0), opening.info().clone());
        let reporter = Arc::new(Reporter { observer, side: opening.side(), info });
        Ok(Box::new(MeasuredStream { reporter, opened: AtomicBool::new(false) }))
    }
}

/// A stream that is measured.
struct MeasuredStream {
    reporter: Arc<Reporter>,
    opened: AtomicBool,
}

/// The observer, with the labels of the stream.
struct Reporter {
    observer: Arc<dyn MetricsObserver>,
    side: Side,
    info: CallInfo,
}

impl InterceptedStream for MeasuredStream {
    fn opened(&self) {
        self.opened.store(true, Ordering::Relaxed);
        let Reporter { observer, side, info } = &*self.reporter;
        observer.stream_opened(*side, info);
    }

    fn send(
        &self,
        message: AnyMessage,
        options: SendOptions,
        next: NextSend,
    ) -> BoxFuture<Result<(), Error>> {
        let (reporter, bytes) = (Arc::clone(&self.reporter), message.encoded_len());
        let sending =
            MeasuredSend { reporter, bytes, stopwatch: Stopwatch::start(next.runtime()), ended: false };
        Box::pin(async move { sending.end(next.run(message, options).await) })
    }

    fn receive(&self, message: AnyMessage) -> Result<AnyMessage, Error> {
        let Reporter { observer, side, info } = &*self.reporter;
        // A panic would reject the message.
        let _ = guard::catch(|| observer.stream_received(*side, info, message.encoded_len()));
        Ok(message)
    }

    fn closed(&self, _: &Error) {
        if self.opened.load(Ordering::Relaxed) {
            let Reporter { observer, side, info } = &*self.reporter;
            observer.stream_closed(*side, info);
        }
    }
}

/// A send in progress. If it is dropped early, it is reported as canceled.
struct MeasuredSend {
    reporter: Arc<Reporter>,
    bytes: usize,
    stopwatch: Stopwatch,
    ended: bool,
}

impl MeasuredSend {
    fn end(mut self, result: Result<(), Error>) -> Result<(), Error> {
        self.ended = true;
        self.report(result.as_ref().copied());
        result
    }

    fn report(&self, result: Result<(), &Error>) {
        let Reporter { observer, side, info } = &*self.reporter;
        let sent = StreamSent { duration: self.stopwatch.elapsed(), result, bytes: self.bytes };
        observer.stream_sent(*side, info, &sent);
    }
}

impl Drop for MeasuredSend {
    fn drop(&mut self) {
        if !self.ended {
            // A panic during unwinding would abort the process.
            let _ = guard::catch(|| self.report(Err(&drop_error())));
        }
    }
}
