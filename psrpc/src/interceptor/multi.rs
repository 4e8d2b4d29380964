//! Interceptors of multi calls.

use std::future::Future;
use std::sync::Arc;

use super::call::OutgoingCall;
use crate::error::Error;
use crate::message::AnyMessage;
use crate::responses::Responses;
use crate::runtime::{BoxFuture, Runtime};

/// An interceptor of the multi calls of a client. It can change the call and its responses, or
/// answer the call itself.
///
/// Functions are interceptors too:
///
/// ```
/// use psrpc::{ClientOptions, NextMultiCall, OutgoingCall};
///
/// let log_responses = |call: OutgoingCall, next: NextMultiCall| async move {
///     let responses = next.run(call).await?;
///     Ok(responses.map_responses(|response| {
///         println!("{response:?}");
///         response
///     }))
/// };
/// let options = ClientOptions::new().multi_interceptor(log_responses);
/// ```
///
/// The first interceptor added to a client is the outermost. Interceptors of a single call
/// ([`MultiCall::interceptor`](crate::MultiCall::interceptor)) run inside those of the client.
/// Request hooks run before all interceptors, and response hooks run with every response after all
/// interceptors.
///
/// An interceptor runs on the caller's task. A panic in it propagates to the caller. Dropping the
/// call or its responses drops the interceptor's future or stream.
pub trait MultiCallInterceptor: Send + Sync + 'static {
    /// Makes the call through `next`, or returns responses without it. A response that is not of
    /// the method's type is replaced by an `internal` error.
    fn call(
        &self,
        call: OutgoingCall,
        next: NextMultiCall,
    ) -> BoxFuture<Result<Responses<AnyMessage>, Error>>;
}

impl<F, Fut> MultiCallInterceptor for F
where
    F: Fn(OutgoingCall, NextMultiCall) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Responses<AnyMessage>, Error>> + Send + 'static,
{
    fn call(
        &self,
        call: OutgoingCall,
        next: NextMultiCall,
    ) -> BoxFuture<Result<Responses<AnyMessage>, Error>> {
        Box::pin(self(call, next))
    }
}

/// The rest of the chain: the next interceptor, or the call itself. Cheap to clone.
#[derive(Clone)]
pub struct NextMultiCall {
    chain: Arc<dyn MultiCallChain>,
    position: usize,
}

/// A multi call and the interceptors around it.
pub(crate) trait MultiCallChain: Send + Sync {
    /// Returns the interceptor at a position, starting with the outermost.
    fn interceptor(&self, position: usize) -> Option<&Arc<dyn MultiCallInterceptor>>;
    /// Makes the call itself.
    fn make(&self, call: OutgoingCall) -> Result<Responses<AnyMessage>, Error>;
    fn runtime(&self) -> &Arc<dyn Runtime>;
}

impl NextMultiCall {
    /// Returns the outermost position of a chain.
    pub(crate) fn new(chain: Arc<dyn MultiCallChain>) -> Self {
        Self { chain, position: 0 }
    }

    /// Makes the call. If this is run several times, each run makes a separate call.
    pub fn run(&self, call: OutgoingCall) -> BoxFuture<Result<Responses<AnyMessage>, Error>> {
        let chain = Arc::clone(&self.chain);
        match self.chain.interceptor(self.position) {
            Some(interceptor) => interceptor.call(call, Self { chain, position: self.position + 1 }),
            None => Box::pin(async move { chain.make(call) }),
        }
    }

    /// Returns the runtime of the client, for its clock and timers.
    pub fn runtime(&self) -> &Arc<dyn Runtime> {
        self.chain.runtime()
    }
}

impl std::fmt::Debug for NextMultiCall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NextMultiCall").field("position", &self.position).finish_non_exhaustive()
    }
}
