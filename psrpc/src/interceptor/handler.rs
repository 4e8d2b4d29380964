//! Interceptors of handlers, in the server.

use std::future::Future;
use std::sync::Arc;

use crate::error::Error;
use crate::message::AnyMessage;
use crate::request::Request;
use crate::runtime::BoxFuture;

/// Code around the handlers of a server, of unary and multi methods: it may change the request, run
/// the handler or not, and change the answer.
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
/// The first that a server was given is the outermost. It runs once the request was granted, as the
/// handler does: a panic in it fails the call with `internal`, and its future is dropped at the
/// request's deadline.
pub trait HandlerInterceptor: Send + Sync + 'static {
    /// Answers the request, by way of `next` or otherwise. A request or an answer that is not of
    /// the method's type fails the call with `internal`.
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

/// What an interceptor is around: the next one, or at last the handler. Cheap to clone.
#[derive(Clone)]
pub struct NextHandler {
    chain: Arc<dyn HandlerChain>,
    position: usize,
}

/// A handler and the interceptors around it, as the server keeps them.
pub(crate) trait HandlerChain: Send + Sync {
    /// Returns the interceptor at a position, the outermost first.
    fn interceptor(&self, position: usize) -> Option<&Arc<dyn HandlerInterceptor>>;
    /// Runs the handler itself.
    fn run(&self, request: Request<AnyMessage>) -> BoxFuture<Result<AnyMessage, Error>>;
}

impl NextHandler {
    /// The outermost interceptor of a handler.
    pub(crate) fn new(chain: Arc<dyn HandlerChain>) -> Self {
        Self { chain, position: 0 }
    }

    /// Runs the handler, once for each time that this is run. Dropping the future stops it.
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
