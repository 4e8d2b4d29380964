//! Interceptors of multi calls, in the client.

use std::future::Future;
use std::sync::Arc;

use super::call::OutgoingCall;
use crate::error::Error;
use crate::message::AnyMessage;
use crate::responses::Responses;
use crate::runtime::{BoxFuture, Runtime};

/// Code around the multi calls of a client: it may change the call, make it or not, and change its
/// answers.
///
/// Functions are interceptors too:
///
/// ```
/// use psrpc::{ClientOptions, NextMultiCall, OutgoingCall};
///
/// let options = ClientOptions::new().multi_interceptor(|call: OutgoingCall, next: NextMultiCall| async move {
///     let answers = next.run(call).await?;
///     Ok(answers.map_responses(|answer| {
///         println!("{answer:?}");
///         answer
///     }))
/// });
/// ```
///
/// The first that a client was given is the outermost. Those of a single call
/// ([`MultiCall::interceptor`](crate::MultiCall::interceptor)) are within those of the client.
/// Request hooks are called before them all, and response hooks with every answer after them all.
///
/// It runs on the caller's task: a panic in it goes to the caller, and dropping the call or its
/// answers drops its own.
pub trait MultiCallInterceptor: Send + Sync + 'static {
    /// Makes the call, by way of `next`, or answers it otherwise. An answer that is not of the method's type is an error,
    /// `internal`, in its place.
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

/// What an interceptor is around: the next one, or at last the call itself. Cheap to clone.
#[derive(Clone)]
pub struct NextMultiCall {
    chain: Arc<dyn MultiCallChain>,
    position: usize,
}

/// A multi call and the interceptors around it, as the client keeps them.
pub(crate) trait MultiCallChain: Send + Sync {
    /// Returns the interceptor at a position, the outermost first.
    fn interceptor(&self, position: usize) -> Option<&Arc<dyn MultiCallInterceptor>>;
    /// Makes the call itself.
    fn make(&self, call: OutgoingCall) -> Result<Responses<AnyMessage>, Error>;
    fn runtime(&self) -> &Arc<dyn Runtime>;
}

impl NextMultiCall {
    /// The outermost interceptor of a multi call.
    pub(crate) fn new(chain: Arc<dyn MultiCallChain>) -> Self {
        Self { chain, position: 0 }
    }

    /// Makes the call, once for each time that this is run.
    pub fn run(&self, call: OutgoingCall) -> BoxFuture<Result<Responses<AnyMessage>, Error>> {
        let chain = Arc::clone(&self.chain);
        match self.chain.interceptor(self.position) {
            Some(interceptor) => interceptor.call(call, Self { chain, position: self.position + 1 }),
            None => Box::pin(async move { chain.make(call) }),
        }
    }

    /// The runtime of the client, for its clock and to sleep.
    pub fn runtime(&self) -> &Arc<dyn Runtime> {
        self.chain.runtime()
    }
}

impl std::fmt::Debug for NextMultiCall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NextMultiCall").field("position", &self.position).finish_non_exhaustive()
    }
}
