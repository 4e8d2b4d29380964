//! Interceptors of handlers.

use std::future::Future;
use std::sync::Arc;

use crate::error::Error;
use crate::message::AnyMessage;
use crate::request::Request;
use crate::runtime::BoxFuture;

/// An interceptor of the unary and multi handlers of a server. It can change the request and the
/// response, or respond without running the handler.
///
/// Functions are interceptors too:
///
/// ```
/// use psrpc::{AnyMessage, Error, ErrorCode, NextHandler, Request, ServerOptions};
///
/// async fn authenticate(request: Request<AnyMessage>, next: NextHandler) -> Result<AnyMessage, Error> {
///     match request.metadata().get("token") {
///         Some(_) => next.run(request).await,
///         None => Err(Error::new(ErrorCode::Unauthenticated, "who are you?")),
///     }
/// }
///
/// let options = ServerOptions::new().interceptor(authenticate);
/// ```
///
/// The first interceptor added to a server is the outermost. Interceptors run once the request is
/// granted, on the handler's task. A panic in one fails the call with `internal`. The future is
/// dropped at the deadline of the request.
pub trait HandlerInterceptor: Send + Sync + 'static {
    /// Handles the request through `next`, or returns a response without it. A request or response
    /// that is not of the method's type fails the call with `internal`.
    fn handle(&self, request: Request<AnyMessage>, next: NextHandler)
    -> BoxFuture<Result<AnyMessage, Error>>;
}

impl<F, Fut> HandlerInterceptor for F
where
    F: Fn(Request<AnyMessage>, NextHandler) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<AnyMessage, Error>> + Send + 'static,
{
    fn handle(
        &self,
        request: Request<AnyMessage>,
        next: NextHandler,
    ) -> BoxFuture<Result<AnyMessage, Error>> {
        Box::pin(self(request, next))
    }
}

/// The rest of the chain: the next interceptor, or the handler. Cheap to clone.
#[derive(Clone)]
pub struct NextHandler {
    chain: Arc<dyn HandlerChain>,
    position: usize,
}

/// A handler and the interceptors around it.
pub(crate) trait HandlerChain: Send + Sync {
    /// Returns the interceptor at a position, starting with the outermost.
    fn interceptor(&self, position: usize) -> Option<&Arc<dyn HandlerInterceptor>>;
    /// Runs the handler itself.
    fn run(&self, request: Request<AnyMessage>) -> BoxFuture<Result<AnyMessage, Error>>;
}

impl NextHandler {
    /// Returns the outermost position of a chain.
    pub(crate) fn new(chain: Arc<dyn HandlerChain>) -> Self {
        Self { chain, position: 0 }
    }

    /// Runs the handler, once for each call of this function. Dropping the future stops the
    /// handler.
    pub fn run(&self, request: Request<AnyMessage>) -> BoxFuture<Result<AnyMessage, Error>> {
        match self.chain.interceptor(self.position) {
            Some(interceptor) => {
                let chain = Arc::clone(&self.chain);
                interceptor.handle(request, Self { chain, position: self.position + 1 })
            }
            None => self.chain.run(request),
        }
    }
}

impl std::fmt::Debug for NextHandler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NextHandler").field("position", &self.position).finish_non_exhaustive()
    }
}
