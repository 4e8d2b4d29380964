//! Handlers of requests and streams, from the payload to the response.

use std::future::{Future, poll_fn};
use std::marker::PhantomData;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use prost::Message;
use psrpc_engine::Received;
use psrpc_engine::proto::ErrorCode;

use crate::cancellation::{CancelOnDrop, CancellationToken};
use crate::error::Error;
use crate::guard;
use crate::info::Side;
use crate::interceptor::{
    CallOptions, HandlerChain, HandlerInterceptor, NextHandler, OpeningStream, ServerInterceptors,
    report_panics,
};
use crate::log;
use crate::log::Label;
use crate::message::AnyMessage;
use crate::request::{Request, RequestContext};
use crate::runtime::{BoxFuture, Runtime};
use crate::stream::{Codec, ServerStream, StreamEnd};

/// A decoded request that waits for its grant.
pub(crate) struct Admitted {
    pub(crate) label: Label,
    pub(crate) affinity: f32,
    /// Whether the request runs without waiting for a grant.
    pub(crate) skips_claim: bool,
    pub(crate) run: Run,
    pub(crate) token: CancelOnDrop,
}

/// The handler to run once the request is granted.
pub(crate) enum Run {
    /// A handler that returns a response.
    Call(HandlerFuture<Bytes>),
    /// A handler of the stream that the request opens, and the codec of the stream.
    Stream(OpenStream, Arc<Codec>),
}

/// The future of a handler, which starts when it is first polled.
pub(crate) type HandlerFuture<T> = BoxFuture<Result<T, Error>>;

/// Opens a stream and returns its handler, unless an interceptor refuses the stream.
pub(crate) type OpenStream = Box<dyn FnOnce(Arc<dyn StreamEnd>) -> Result<HandlerFuture<()>, Error> + Send>;

/// A method's handler, independent of its message types.
pub(crate) trait MethodHandler: Send + Sync + 'static {
    /// Decodes a request and computes its affinity. Returns an error if the request does not
    /// decode.
    fn admit(&self, received: Received, runtime: &Arc<dyn Runtime>) -> Result<Admitted, Error>;

    /// Sets the interceptors around the handler.
    fn set_interceptors(&mut self, interceptors: &Arc<ServerInterceptors>);
}

/// A handler of unary calls, and its affinity function.
pub(crate) struct Unary<Req, F> {
    pub(crate) handler: Arc<F>,
    pub(crate) affinity: Option<Affinity<Req>>,
    pub(crate) interceptors: Option<Arc<ServerInterceptors>>,
}

/// A method's affinity function.
pub(crate) type Affinity<Req> = Box<dyn Fn(&Request<Req>) -> f32 + Send + Sync>;

/// Returns the request, whose message `decode` makes of the payload, and the token of its handler.
/// Inlined, since a request is large to move.
#[inline]
fn into_request<T>(
    received: Received,
    runtime: &Arc<dyn Runtime>,
    decode: impl FnOnce(Bytes) -> Result<T, Error>,
) -> Result<(Request<T>, CancelOnDrop), Error> {
    let Received { route, client_id, request_id, metadata, sent_at, deadline, payload, .. } = received;
    let message = decode(payload)?;
    let (runtime, token) = (Arc::clone(runtime), Arc::new(CancellationToken::default()));
    let cancels = CancelOnDrop(Arc::clone(&token));
    let context =
        RequestContext { route, client_id, request_id, metadata, sent_at, deadline, runtime, token };
    Ok((Request { message, context }, cancels))
}

/// Returns the affinity for a request: 1 if the method requires no claim or has no affinity
/// function. A panic counts as no bid, so that another server can take the request.
fn compute_affinity<Req>(request: &Request<Req>, affinity: Option<&Affinity<Req>>, label: &Label) -> f32 {
    let claimed = request.context.route.properties().require_claim;
    let Some(affinity) = affinity.filter(|_| claimed) else { return 1.0 };
    guard::catch(|| affinity(request)).unwrap_or_else(|panicked| {
        log::panicked(Side::Server, "an affinity function", Some(label), &panicked);
        -1.0
    })
}

impl<Req, Res, F, Fut> MethodHandler for Unary<Req, F>
where
    Req: Message + Default + 'static,
    Res: Message + 'static,
    F: Fn(Request<Req>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Res, Error>> + Send + 'static,
{
    fn admit(&self, received: Received, runtime: &Arc<dyn Runtime>) -> Result<Admitted, Error> {
        let may_skip_claim = received.may_skip_claim;
        let (request, token) = into_request(received, runtime, |payload| {
            Req::decode(payload).map_err(|error| Error::from_source(ErrorCode::MalformedRequest, error))
        })?;
        let label = request.label();
        let affinity = compute_affinity(&request, self.affinity.as_ref(), &label);
        let interceptors = self.interceptors.clone();
        // A request that the server would not bid for does not run without a grant either.
        let may_skip_claim = may_skip_claim && affinity >= 0.0;
        let skips_claim = may_skip_claim
            && interceptors.as_ref().is_some_and(|interceptors| interceptors.skips_claim(&request));
        let handler = Arc::clone(&self.handler);
        let run: HandlerFuture<Bytes> = match interceptors {
            Some(interceptors) => Box::pin(intercepted(interceptors, handler, request)),
            None => Box::pin(async move { Ok(handler(request).await?.encode_to_vec().into()) }),
        };
        Ok(Admitted { label, affinity, skips_claim, run: Run::Call(run), token })
    }

    fn set_interceptors(&mut self, interceptors: &Arc<ServerInterceptors>) {
        self.interceptors = Some(Arc::clone(interceptors));
    }
}

/// Runs a unary handler through its interceptors. Reports a panic in any of them to the panic
/// hooks.
async fn intercepted<Req, Res, F, Fut>(
    interceptors: Arc<ServerInterceptors>,
    handler: Arc<F>,
    request: Request<Req>,
) -> Result<Bytes, Error>
where
    Req: Message + Default + 'static,
    Res: Message + 'static,
    F: Fn(Request<Req>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Res, Error>> + Send + 'static,
{
    let info = request.info();
    let chain = InterceptedHandler {
        interceptors: Arc::clone(&interceptors),
        handler,
        request: PhantomData::<fn(Req)>,
    };
    let next = NextHandler::new(Arc::new(chain));
    let mut future = pin!(async move { next.run(request.map(AnyMessage::new)).await });
    let response =
        poll_fn(|cx| report_panics(&interceptors.panic_hooks, &info, || future.as_mut().poll(cx))).await?;
    response.expect::<Res>()?;
    Ok(response.encode_to_vec().into())
}

/// A unary handler together with its interceptors.
struct InterceptedHandler<Req, F> {
    interceptors: Arc<ServerInterceptors>,
    handler: Arc<F>,
    request: PhantomData<fn(Req)>,
}

impl<Req, Res, F, Fut> HandlerChain for InterceptedHandler<Req, F>
where
    Req: Message + Default + 'static,
    Res: Message + 'static,
    F: Fn(Request<Req>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Res, Error>> + Send + 'static,
{
    fn interceptor(&self, position: usize) -> Option<&Arc<dyn HandlerInterceptor>> {
        self.interceptors.handlers.get(position)
    }

    fn run(&self, request: Request<AnyMessage>) -> BoxFuture<Result<AnyMessage, Error>> {
        let handler = Arc::clone(&self.handler);
        Box::pin(async move {
            let request = request.try_map(AnyMessage::into_message)?;
            handler(request).await.map(AnyMessage::new)
        })
    }
}

/// A handler of streams that send `S` and receive `R`, and its affinity function.
pub(crate) struct StreamHandler<S, R, F> {
    pub(crate) handler: Arc<F>,
    pub(crate) affinity: Option<Affinity<()>>,
    pub(crate) interceptors: Option<Arc<ServerInterceptors>>,
    pub(crate) messages: PhantomData<fn(R) -> S>,
}

impl<S, R, F, Fut> MethodHandler for StreamHandler<S, R, F>
where
    S: Message + 'static,
    R: Message + Default + 'static,
    F: Fn(ServerStream<S, R>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), Error>> + Send + 'static,
{
    fn admit(&self, received: Received, runtime: &Arc<dyn Runtime>) -> Result<Admitted, Error> {
        let (request, token) = into_request(received, runtime, |_| Ok(()))?;
        let label = request.label();
        let affinity = compute_affinity(&request, self.affinity.as_ref(), &label);
        let codec = Arc::new(Codec::new::<S, R>(request.info(), Side::Server));
        let (handler, interceptors) = (Arc::clone(&self.handler), self.interceptors.clone());
        let open = move |end: Arc<dyn StreamEnd>| -> Result<HandlerFuture<()>, Error> {
            let mut context = request.context;
            let Some(interceptors) = interceptors else {
                let stream = ServerStream::at_server(end, context);
                return Ok(Box::pin(async move { handler(stream).await }));
            };
            let codec = Arc::clone(end.codec());
            let info = codec.info().clone();
            let options = CallOptions { metadata: context.metadata, ..CallOptions::new() };
            let mut opening = OpeningStream::new(info.clone(), Side::Server, options);
            report_panics(&interceptors.panic_hooks, &info, || {
                codec.intercept(&interceptors.streams, &mut opening)
            })?;
            context.metadata = opening.options.metadata;
            let stream = ServerStream::at_server(end, context);
            Ok(Box::pin(async move {
                let mut future = pin!(async move { handler(stream).await });
                poll_fn(|cx| report_panics(&interceptors.panic_hooks, &info, || future.as_mut().poll(cx)))
                    .await
            }))
        };
        let run = Run::Stream(Box::new(open), codec);
        Ok(Admitted { label, affinity, skips_claim: false, run, token })
    }

    fn set_interceptors(&mut self, interceptors: &Arc<ServerInterceptors>) {
        self.interceptors = Some(Arc::clone(interceptors));
    }
}

/// A running handler. Resolves to its response, to `internal` if it panics, and to `None` if it is
/// canceled.
pub(crate) struct RunningHandler<T> {
    label: Label,
    /// `None` after the drop.
    future: Option<HandlerFuture<T>>,
    /// Dropped after the future.
    token: CancelOnDrop,
}

impl<T> RunningHandler<T> {
    pub(crate) fn new(label: Label, future: HandlerFuture<T>, token: CancelOnDrop) -> Self {
        Self { label, future: Some(future), token }
    }
}

impl<T> Future for RunningHandler<T> {
    type Output = Option<Result<T, Error>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if this.token.0.poll(cx) {
            return Poll::Ready(None);
        }
        let future = this.future.as_mut().expect("polled after drop");
        match guard::catch(|| future.as_mut().poll(cx)) {
            Ok(polled) => {
                polled.map(|result| Some(result.inspect_err(|error| log::failed(&this.label, error))))
            }
            // The caller does not get the message of the panic, which may be confidential.
            Err(panicked) => {
                log::panicked(Side::Server, "a handler", Some(&this.label), &panicked);
                Poll::Ready(Some(Err(Error::new(ErrorCode::Internal, "the handler panicked"))))
            }
        }
    }
}

impl<T> Drop for RunningHandler<T> {
    fn drop(&mut self) {
        // Dropping the handler's future runs user code.
        let _ = guard::catch(|| drop(self.future.take()));
    }
}
