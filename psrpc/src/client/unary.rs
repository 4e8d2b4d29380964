//! Unary calls.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::marker::PhantomData;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use prost::Message;
use psrpc_engine::proto::ErrorCode;
use psrpc_engine::{Call as EngineCall, Reason, Reply, Route};

use super::builder::{call_options, selection_option};
use super::in_flight::InFlight;
use super::within::Within;
use crate::client::{Client, RouteResult};
use crate::error::Error;
use crate::info::CallInfo;
use crate::interceptor::{CallChain, CallInterceptor, CallOptions, NextCall, OutgoingCall};
use crate::message::AnyMessage;
use crate::method::{Method, MethodKind};
use crate::runtime::{BoxFuture, Runtime};
use crate::selection::Choose;

/// A builder for a unary call. Await it to make the call.
///
/// ```
/// # use std::time::Duration;
/// # struct Hats(psrpc::Client, &'static psrpc::Method);
/// # impl Hats {
/// #     fn fit(&self, hat: String) -> psrpc::Call<String, bool> { self.0.call(self.1, &[], hat) }
/// # }
/// # async fn example(client: Hats, hat: String) -> Result<(), psrpc::Error> {
/// let fits = client.fit(hat).timeout(Duration::from_millis(500)).metadata("shop", "corner").await?;
/// # Ok(())
/// # }
/// ```
///
/// A `Call` is not a future, but becomes one when it is awaited. Where a future is needed, such as
/// for `tokio::spawn`, call `into_future()`.
///
/// Nothing is sent before the future is first polled. Dropping the future cancels the call. A
/// server that is waiting for the grant then runs no handler. A handler that has started runs on
/// until its deadline, since the protocol has no cancellation; on an in-process bus its future is
/// dropped.
///
/// # Errors
///
/// A handler may return any code, so match on the [`reason`](Error::reason) to tell these errors
/// apart. The last column is the value of [`Error::may_have_run`], which errs on the side of
/// `true`.
///
/// | reason | code | what happened | may it have run? |
/// |---|---|---|---|
/// | [`Answered`](Reason::Answered) | the server's | a server answered with this error | yes |
/// | [`NobodySubscribed`](Reason::NobodySubscribed) | `unavailable` | the bus knows that no server was subscribed | no |
/// | [`NoResponse`](Reason::NoResponse) | `unavailable` | no server bid | no; on a queue, yes |
/// | [`NotAcceptable`](Reason::NotAcceptable) | `unavailable` | no bid was acceptable, or the selection function selected none | no; on a queue, yes |
/// | [`SelectionFailed`](Reason::SelectionFailed) | the function's, or `internal` | the selection function failed or panicked | no |
/// | [`TimedOut`](Reason::TimedOut) | `deadline_exceeded` | the deadline passed before a response arrived, or during the selection | yes, unless nothing was sent or there was no subscriber |
/// | [`PublishFailed`](Reason::PublishFailed) | `unavailable` | the bus did not accept the request or the grant | yes |
/// | [`PublishFailed`](Reason::PublishFailed) | `invalid_argument` | the bus cannot carry the request, for example because it is too large | no |
/// | [`Interrupted`](Reason::Interrupted) | `unavailable` | the client's subscriptions are interrupted, so it would miss the response | no |
/// | [`SubscriptionLost`](Reason::SubscriptionLost) | `unavailable` | the bus gave up the client's subscriptions | yes |
/// | [`MalformedResult`](Reason::MalformedResult) | `malformed_result` | the response does not decode | yes |
/// | [`Canceled`](Reason::Canceled) | `canceled` | the call was made [within](Self::within) a handler that has ended | yes, if it was in flight |
/// | [`ClientClosed`](Reason::ClientClosed) | `canceled` | the client was closed | yes, if it was in flight |
/// | [`RuntimeEnded`](Reason::RuntimeEnded) | `unavailable` | the client's runtime has shut down | yes, if it was in flight |
/// | none | `invalid_argument` | the topic, metadata, message or selection is invalid | no |
/// | none | `resource_exhausted` | this client has too many calls in flight | no |
///
/// [`Error::explanation`] describes the likely cause. A call for which no server bids waits until
/// its affinity timeout or deadline, since servers may be slow to bid. It fails at once if the bus
/// knows that nobody is subscribed, unless it [waits](Self::wait_for_subscriber).
#[must_use = "a call does nothing until it is awaited"]
pub struct Call<Req, Res> {
    target: CallTarget<Req, Res>,
    options: CallOptions,
}

/// The destination of a call.
enum CallTarget<Req, Res> {
    Method(Client, RouteResult, Req),
    Fake(BoxFuture<Result<Res, Error>>),
}

impl<Req, Res> Call<Req, Res> {
    pub(crate) fn new(client: Client, route: RouteResult, request: Req) -> Self {
        let options = client.call_options();
        Self { target: CallTarget::Method(client, route, request), options }
    }

    /// Returns a call that resolves to `result`, for fake clients in unit tests. It ignores its
    /// options and interceptors.
    ///
    /// ```
    /// # use psrpc::{Call, Error};
    /// # trait HatsApi { fn fit(&self, hat: String) -> Call<String, bool>; }
    /// struct Fake;
    ///
    /// impl HatsApi for Fake {
    ///     fn fit(&self, hat: String) -> Call<String, bool> {
    ///         Call::fake(async move { Ok(hat == "fez") })
    ///     }
    /// }
    /// ```
    pub fn fake(result: impl Future<Output = Result<Res, Error>> + Send + 'static) -> Self {
        Self { target: CallTarget::Fake(Box::pin(result)), options: CallOptions::new() }
    }

    call_options!(
        "Sets how long the call may take, counted from the first poll. Default: the client's timeout."
    );
    selection_option!();

    /// Adds an interceptor around this call. It runs inside those of the client and those added
    /// before.
    pub fn interceptor(mut self, interceptor: impl CallInterceptor) -> Self {
        self.options = self.options.interceptor(interceptor);
        self
    }
}

impl Client {
    /// Makes a call of `method` on `topic`. The topic is empty for a method without topics.
    ///
    /// Generated clients have a method for each rpc; prefer those.
    pub fn call<Req, Res>(&self, method: &'static Method, topic: &[&str], request: Req) -> Call<Req, Res> {
        Call::new(self.clone(), self.route(MethodKind::Call, method, topic), request)
    }
}

impl<Req, Res> fmt::Debug for Call<Req, Res> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let route = match &self.target {
            CallTarget::Method(_, route, _) => Some(route),
            CallTarget::Fake(_) => None,
        };
        f.debug_struct("Call").field("route", &route).field("options", &self.options).finish_non_exhaustive()
    }
}

impl<Req: Message + 'static, Res: Message + Default + 'static> IntoFuture for Call<Req, Res> {
    type Output = Result<Res, Error>;
    type IntoFuture = CallFuture<Res>;

    /// Returns the future that makes the call.
    fn into_future(self) -> CallFuture<Res> {
        let Self { target, mut options } = self;
        let interceptors = mem::take(&mut options.interceptors);
        let (client, route, request) = match target {
            CallTarget::Fake(result) => return CallState::Boxed(result).into(),
            CallTarget::Method(_, Err(error), _) => return CallState::Refused(error).into(),
            CallTarget::Method(client, Ok(route), request) => (client, route, request),
        };
        let scope = client.enter_scope(&mut options);
        let call = if interceptors.is_empty() && client.interceptors().is_empty_for_calls() {
            CallFuture::new(client, route, request.encode_to_vec(), options)
        } else {
            CallState::Boxed(Box::pin(intercepted(client, route, request, options, interceptors))).into()
        };
        match scope {
            Some(scope) => CallState::Boxed(Box::pin(Within::new(call, scope))).into(),
            None => call,
        }
    }
}

/// The future of a [`Call`].
#[must_use = "a call does nothing until it is awaited"]
pub struct CallFuture<Res> {
    state: CallState<Res>,
    response: PhantomData<fn() -> Res>,
}

enum CallState<Res> {
    /// The call is invalid.
    Refused(Error),
    /// Not polled yet. Boxed, since the engine's call is large.
    New(Client, Box<EngineCall>, Option<Choose>),
    InFlight(InFlight),
    /// A call with interceptors or within a handler, or a fake.
    Boxed(BoxFuture<Result<Res, Error>>),
    Done,
}

impl<Res> CallFuture<Res> {
    /// Makes a call without interceptors.
    pub(crate) fn new(client: Client, route: Route, payload: Vec<u8>, options: CallOptions) -> Self {
        let CallOptions { timeout, deadline, selection, wait_for_subscriber, metadata, .. } = options;
        let (selection, choose) = selection.into_parts();
        let call = EngineCall {
            timeout,
            deadline,
            selection,
            waits_for_subscriber: wait_for_subscriber,
            metadata,
            ..EngineCall::new(route, payload)
        };
        CallState::New(client, Box::new(call), choose).into()
    }
}

impl<Res> From<CallState<Res>> for CallFuture<Res> {
    fn from(state: CallState<Res>) -> Self {
        Self { state, response: PhantomData }
    }
}

impl<Res> fmt::Debug for CallFuture<Res> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallFuture").finish_non_exhaustive()
    }
}

impl<Res: Message + Default> Future for CallFuture<Res> {
    type Output = Result<Res, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            match mem::replace(&mut self.state, CallState::Done) {
                CallState::Refused(error) => return Poll::Ready(Err(error)),
                CallState::New(client, call, choose) => {
                    self.state = CallState::InFlight(InFlight::start(client, call, choose)?);
                }
                CallState::InFlight(mut call) => {
                    let Poll::Ready(outcome) = call.poll(cx) else {
                        self.state = CallState::InFlight(call);
                        return Poll::Pending;
                    };
                    return Poll::Ready(outcome.map_err(|failure| (*failure).into()).and_then(decode));
                }
                CallState::Boxed(mut call) => {
                    let polled = call.as_mut().poll(cx);
                    if polled.is_pending() {
                        self.state = CallState::Boxed(call);
                    }
                    return polled;
                }
                CallState::Done => panic!("`CallFuture` polled after completion"),
            }
        }
    }
}

fn decode<Res: Message + Default>(reply: Reply) -> Result<Res, Error> {
    Res::decode(reply.payload).map_err(|error| {
        Error::from_source(ErrorCode::MalformedResult, error).with_reason(Reason::MalformedResult)
    })
}

/// Makes a unary call through its hooks and interceptors.
async fn intercepted<Req: Message + 'static, Res: Message + Default + 'static>(
    client: Client,
    route: Route,
    request: Req,
    options: CallOptions,
    call_interceptors: Vec<Arc<dyn CallInterceptor>>,
) -> Result<Res, Error> {
    let info = CallInfo::from(route.clone());
    let request = AnyMessage::new(request);
    client.interceptors().hooks.on_request(&info, &request);
    let call = OutgoingCall::new(request.clone(), options, info.clone());
    let chain = InterceptedCall {
        client: client.clone(),
        route,
        call_interceptors,
        types: PhantomData::<fn(Req) -> Res>,
    };
    let result = NextCall::new(Arc::new(chain)).run(call).await;
    let result = result.and_then(|response| response.expect::<Res>().map(|()| response));
    client.interceptors().hooks.on_response(&info, &request, result.as_ref());
    result?.into_message()
}

/// A unary call together with its interceptors.
struct InterceptedCall<Req, Res> {
    client: Client,
    route: Route,
    /// The interceptors added to this call.
    call_interceptors: Vec<Arc<dyn CallInterceptor>>,
    types: PhantomData<fn(Req) -> Res>,
}

impl<Req: Message + 'static, Res: Message + Default + 'static> CallChain for InterceptedCall<Req, Res> {
    fn interceptor(&self, position: usize) -> Option<&Arc<dyn CallInterceptor>> {
        self.client.interceptors().calls.iter().chain(&self.call_interceptors).nth(position)
    }

    fn make(&self, call: OutgoingCall) -> BoxFuture<Result<AnyMessage, Error>> {
        let (client, route) = (self.client.clone(), self.route.clone());
        Box::pin(async move {
            let OutgoingCall { message, options, .. } = call;
            message.expect::<Req>()?;
            let payload = message.encode_to_vec();
            drop(message);
            CallFuture::<Res>::new(client, route, payload, options).await.map(AnyMessage::new)
        })
    }

    fn runtime(&self) -> &Arc<dyn Runtime> {
        &self.client.driver().runtime
    }

    fn abandoned(&self) -> BoxFuture<()> {
        let driver = Arc::clone(self.client.driver());
        Box::pin(async move { driver.abandoned().await })
    }
}
