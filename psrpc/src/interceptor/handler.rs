//! Interceptors of handlers, in the server.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;

use super::AroundHandlers;
use crate::middleware::reporting;
use crate::runtime::BoxFuture;
use crate::{AnyMessage, Error, Request, ServerOptions};

/// Code around the handlers of a server, of unary and multi methods: it may change the request, run the handler or not, and
/// change the answer.
///
/// Functions are interceptors too:
///
/// ```
/// use psrpc::{AnyMessage, Error, ErrorCode, NextHandler, Request, ServerOptions};
///
/// let options = ServerOptions::new().interceptor(|request: Request<AnyMessage>, next: NextHandler| async move {
///     match request.metadata().get("token") {
///         Some(_) => next.run(request).await,
///         None => Err(Error::new(ErrorCode::Unauthenticated, "who are you?")),
///     }
/// });
/// ```
///
/// The first that a server was given is the outermost. It runs once the request was granted, as the handler does: a panic in
/// it fails the call with `internal`, and its future is dropped at the request's deadline.
pub trait HandlerInterceptor: Send + Sync + 'static {
    /// Answers the request, by way of `next` or otherwise. A request or an answer that is not of the method's type fails the
    /// call with `internal`.
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

impl ServerOptions {
    /// Puts an interceptor around every handler of a unary or multi method, within those that were added before.
    #[must_use]
    pub fn interceptor(mut self, interceptor: impl HandlerInterceptor) -> Self {
        self.around.interceptors.push(Arc::new(interceptor));
        self
    }
}

/// What an interceptor is around: the next one, or at last the handler. Cheap to clone.
#[derive(Clone)]
pub struct NextHandler {
    around: Arc<AroundHandlers>,
    position: usize,
    handler: Arc<Handler>,
}

type Handler = dyn Fn(Request<AnyMessage>) -> BoxFuture<Result<AnyMessage, Error>> + Send + Sync;

impl NextHandler {
    /// Runs the handler, once for each time that this is run. Dropping the future stops it.
    pub fn run(&self, request: Request<AnyMessage>) -> BoxFuture<Result<AnyMessage, Error>> {
        match self.around.interceptors.get(self.position) {
            Some(interceptor) => {
                interceptor.handle(request, Self { position: self.position + 1, ..self.clone() })
            }
            None => (self.handler)(request),
        }
    }
}

impl std::fmt::Debug for NextHandler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NextHandler").finish_non_exhaustive()
    }
}

/// The answer of a handler with all that is around it.
pub(crate) async fn handled<Req, Res, F, Fut>(
    around: Arc<AroundHandlers>,
    handler: Arc<F>,
    request: Request<Req>,
) -> Result<Bytes, Error>
where
    Req: Message + Default + 'static,
    Res: Message + 'static,
    F: Fn(Request<Req>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Res, Error>> + Send + 'static,
{
    let handler = move |request: Request<AnyMessage>| -> BoxFuture<Result<AnyMessage, Error>> {
        let handler = Arc::clone(&handler);
        Box::pin(async move {
            let request = request.try_map(AnyMessage::into_message)?;
            handler(request).await.map(AnyMessage::new)
        })
    };
    let info = request.info();
    let next = NextHandler { around: Arc::clone(&around), position: 0, handler: Arc::new(handler) };
    let mut answering = pin!(async move { next.run(request.map(AnyMessage::new)).await });
    let response = poll_fn(|cx| reporting(&around.panics, &info, || answering.as_mut().poll(cx))).await?;
    response.expect::<Res>()?;
    Ok(response.encode_to_vec().into())
}
