//! Multi calls, which every server answers.

mod in_flight;
mod table;

use std::fmt;
use std::future::IntoFuture;
use std::marker::PhantomData;
use std::sync::Arc;

use prost::Message;
use psrpc_engine::{MultiCall as EngineCall, Route};

use self::in_flight::InFlight;
pub(crate) use self::table::MultiTable;
use super::builder::call_options;
use super::within::Within;
use crate::client::{Client, RouteResult};
use crate::error::Error;
use crate::info::CallInfo;
use crate::interceptor::{CallOptions, MultiCallChain, MultiCallInterceptor, NextMultiCall, OutgoingCall};
use crate::message::AnyMessage;
use crate::method::{Method, MethodKind};
use crate::responses::Responses;
use crate::runtime::{BoxFuture, Runtime};

/// A builder for a multi call. Await it to make the call and get the [`Responses`].
///
/// ```
/// # use std::time::Duration;
/// # use psrpc::{Error, MultiCall};
/// # struct Client(Option<MultiCall<String, u64>>);
/// # impl Client { fn census(&mut self, _: String) -> MultiCall<String, u64> { self.0.take().unwrap() } }
/// # async fn example(mut client: Client, ask: String) -> Result<(), Error> {
/// let mut responses = client.census(ask).timeout(Duration::from_millis(500)).await?;
/// while let Some(response) = responses.next().await {
///     match response {
///         Ok(count) => println!("{} hats at {}", *count, count.server_id()),
///         Err(error) => println!("{:?}: {error}", error.server_id()),
///     }
/// }
/// # Ok(())
/// # }
/// ```
///
/// The request is sent when the future is first polled, and the future resolves at once. The
/// responses end at the timeout, when [enough](Self::responses) have arrived, or when they are
/// dropped. If you know the number of servers, set it, and the responses end as soon as all servers
/// have responded.
///
/// # Errors
///
/// Returns `invalid_argument` if the topic, metadata or message is invalid, `resource_exhausted` if
/// this client has too many calls in flight, and `canceled` if the client is closed. Later errors
/// are items of the responses.
#[must_use = "a call does nothing until it is awaited"]
pub struct MultiCall<Req, Res> {
    target: MultiCallTarget<Req, Res>,
    options: CallOptions,
    expected: Option<usize>,
    interceptors: Vec<Arc<dyn MultiCallInterceptor>>,
}

/// The destination of a multi call.
enum MultiCallTarget<Req, Res> {
    Method(Client, RouteResult, Req),
    Fake(Result<Responses<Res>, Error>),
}

impl<Req, Res> MultiCall<Req, Res> {
    pub(crate) fn new(client: Client, route: RouteResult, request: Req) -> Self {
        let options = client.call_options();
        Self::to(MultiCallTarget::Method(client, route, request), options)
    }

    /// Returns a call that resolves to `responses`, for fake clients in unit tests. It ignores its
    /// options and interceptors. See [`Responses::new`].
    pub fn fake(responses: Result<Responses<Res>, Error>) -> Self {
        Self::to(MultiCallTarget::Fake(responses), CallOptions::new())
    }

    fn to(target: MultiCallTarget<Req, Res>, options: CallOptions) -> Self {
        Self { target, options, expected: None, interceptors: Vec::new() }
    }

    call_options!(
        "Sets how long to collect responses, counted from the first poll. Default: the client's timeout."
    );

    /// Sets how many responses are enough, including errors of servers. Default: all responses that
    /// arrive in time.
    pub fn responses(mut self, enough: usize) -> Self {
        self.expected = Some(enough);
        self
    }

    /// Adds an interceptor around this call. It runs inside those of the client and those added
    /// before.
    pub fn interceptor(mut self, interceptor: impl MultiCallInterceptor) -> Self {
        self.interceptors.push(Arc::new(interceptor));
        self
    }
}

impl Client {
    /// Makes a call of `method` on `topic` that every server answers.
    ///
    /// Generated clients have a method for each rpc; prefer those.
    pub fn multi_call<Req, Res>(
        &self,
        method: &'static Method,
        topic: &[&str],
        request: Req,
    ) -> MultiCall<Req, Res> {
        MultiCall::new(self.clone(), self.route(MethodKind::Call, method, topic), request)
    }
}

impl<Req, Res> fmt::Debug for MultiCall<Req, Res> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let route = match &self.target {
            MultiCallTarget::Method(_, route, _) => Some(route),
            MultiCallTarget::Fake(_) => None,
        };
        f.debug_struct("MultiCall")
            .field("route", &route)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl<Req: Message + 'static, Res: Message + Default + 'static> IntoFuture for MultiCall<Req, Res> {
    type Output = Result<Responses<Res>, Error>;
    type IntoFuture = BoxFuture<Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        let Self { target, mut options, expected, interceptors } = self;
        Box::pin(async move {
            let (client, route, request) = match target {
                MultiCallTarget::Method(client, route, request) => (client, route?, request),
                MultiCallTarget::Fake(responses) => return responses,
            };
            let scope = client.enter_scope(&mut options);
            let starting = async move {
                if interceptors.is_empty() && client.interceptors().is_empty_for_multi_calls() {
                    return start(client, route, request.encode_to_vec(), options, expected);
                }
                intercepted(client, route, request, options, expected, interceptors).await
            };
            match scope {
                Some(scope) => Ok(Within::new(starting, scope.clone()).await?.within(scope)),
                None => starting.await,
            }
        })
    }
}

/// Makes a multi call without interceptors.
fn start<Res: Message + Default + 'static>(
    client: Client,
    route: Route,
    payload: Vec<u8>,
    options: CallOptions,
    expected: Option<usize>,
) -> Result<Responses<Res>, Error> {
    let CallOptions { timeout, deadline, metadata, .. } = options;
    let call = EngineCall { timeout, deadline, metadata, expected, ..EngineCall::new(route, payload) };
    Ok(Responses::new(InFlight::<Res>::start(client, call)?))
}

/// Makes a multi call through its hooks and interceptors.
async fn intercepted<Req: Message + 'static, Res: Message + Default + 'static>(
    client: Client,
    route: Route,
    request: Req,
    options: CallOptions,
    expected: Option<usize>,
    call_interceptors: Vec<Arc<dyn MultiCallInterceptor>>,
) -> Result<Responses<Res>, Error> {
    let info = CallInfo::from(route.clone());
    let request = AnyMessage::new(request);
    client.interceptors().hooks.on_request(&info, &request);
    let call = OutgoingCall::new(request.clone(), options, info.clone());
    let chain = InterceptedCall {
        client: client.clone(),
        route,
        expected,
        call_interceptors,
        types: PhantomData::<fn(Req) -> Res>,
    };
    let responses = NextMultiCall::new(Arc::new(chain)).run(call).await;
    let hooks = client.interceptors().hooks.clone();
    if let Err(error) = &responses {
        hooks.on_response(&info, &request, Err(error));
    }
    Ok(responses?.map_responses(move |response| {
        let response = response.and_then(|response| response.expect::<Res>().map(|()| response));
        hooks.on_response(&info, &request, response.as_deref());
        response?.try_map(AnyMessage::into_message)
    }))
}

/// A multi call together with its interceptors.
struct InterceptedCall<Req, Res> {
    client: Client,
    route: Route,
    expected: Option<usize>,
    /// The interceptors added to this call.
    call_interceptors: Vec<Arc<dyn MultiCallInterceptor>>,
    types: PhantomData<fn(Req) -> Res>,
}

impl<Req: Message + 'static, Res: Message + Default + 'static> MultiCallChain for InterceptedCall<Req, Res> {
    fn interceptor(&self, position: usize) -> Option<&Arc<dyn MultiCallInterceptor>> {
        self.client.interceptors().multi_calls.iter().chain(&self.call_interceptors).nth(position)
    }

    fn make(&self, call: OutgoingCall) -> Result<Responses<AnyMessage>, Error> {
        let OutgoingCall { message, options, .. } = call;
        message.expect::<Req>()?;
        let (client, route) = (self.client.clone(), self.route.clone());
        let responses = start::<Res>(client, route, message.encode_to_vec(), options, self.expected)?;
        Ok(responses.map_responses(|response| response?.try_map(|message| Ok(AnyMessage::new(message)))))
    }

    fn runtime(&self) -> &Arc<dyn Runtime> {
        &self.client.driver().runtime
    }
}
