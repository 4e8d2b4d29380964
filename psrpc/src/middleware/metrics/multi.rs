//! Metrics of multi calls, in the client.

use std::sync::Arc;

use super::{Metrics, MetricsObserver, MultiCall, Stopwatch};
use crate::error::Error;
use crate::guard;
use crate::info::{CallInfo, Side};
use crate::interceptor::{MultiCallInterceptor, NextMultiCall, OutgoingCall};
use crate::message::AnyMessage;
use crate::responses::{Response, Responses};
use crate::runtime::BoxFuture;

impl MultiCallInterceptor for Metrics {
    fn call(
        &self,
        call: OutgoingCall,
        next: NextMultiCall,
    ) -> BoxFuture<Result<Responses<AnyMessage>, Error>> {
        let mut measured = MeasuredMultiCall {
            observer: Arc::clone(&self.0),
            info: call.info().clone(),
            stopwatch: Stopwatch::start(next.runtime()),
            responses: 0,
            errors: 0,
            bytes_sent: call.message.encoded_len(),
            bytes_received: 0,
        };
        Box::pin(async move {
            match next.run(call).await {
                Ok(responses) => Ok(responses.map_responses(move |response| {
                    measured.count(response.as_ref());
                    response
                })),
                Err(error) => {
                    measured.count(Err(&error));
                    Err(error)
                }
            }
        })
    }
}

/// A multi call in progress. It is reported when it is dropped, which happens when the responses
/// end or are dropped.
struct MeasuredMultiCall {
    observer: Arc<dyn MetricsObserver>,
    info: CallInfo,
    stopwatch: Stopwatch,
    responses: u64,
    errors: u64,
    bytes_sent: usize,
    bytes_received: usize,
}

impl MeasuredMultiCall {
    fn count(&mut self, response: Result<&Response<AnyMessage>, &Error>) {
        match response {
            Ok(response) => {
                self.responses += 1;
                self.bytes_received += response.encoded_len();
            }
            Err(_) => self.errors += 1,
        }
    }
}

impl Drop for MeasuredMultiCall {
    fn drop(&mut self) {
        let Self { observer, info, stopwatch, .. } = &*self;
        let Self { responses, errors, bytes_sent, bytes_received, .. } = *self;
        let duration = stopwatch.elapsed();
        let call = MultiCall { duration, responses, errors, bytes_sent, bytes_received };
        // A panic during unwinding would abort the process.
        let _ = guard::catch(|| observer.multi_call(Side::Client, info, &call));
    }
}
