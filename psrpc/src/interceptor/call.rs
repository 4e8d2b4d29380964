//! Interceptors of unary calls, in the client.

use std::future::Future;
use std::sync::Arc;

use prost::Message;
use psrpc_engine::Route;

use crate::call::Calling;
use crate::client::Client;
use crate::runtime::{BoxFuture, Runtime};
use crate::{AnyMessage, CallInfo, CallOptions, ClientOptions, Error};

/// A unary call on its way through the interceptors of a client.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Outgoing {
    /// The request. Another takes its place if it is of the same type; one of another type fails the call.
    pub message: AnyMessage,
    /// How it is made.
    pub options: CallOptions,
    info: CallInfo,
}

impl Outgoing {
    pub(super) fn new(message: AnyMessage, options: CallOptions, info: CallInfo) -> Self {
        Self { message, options, info }
    }

    /// What it goes to.
    pub fn info(&self) -> &CallInfo {
        &self.info
    }
}

/// Code around the unary calls of a client: it may change the call, make it or not, several times, and change its result.
///
/// Functions are interceptors too:
///
/// ```
/// use psrpc::{ClientOptions, NextCall, Outgoing};
///
/// let options = ClientOptions::new().interceptor(|mut call: Outgoing, next: NextCall| async move {
///     call.options.metadata.insert("shop", "corner");
///     next.run(call).await
/// });
/// ```
///
/// The first that a client was given is the outermost. Those of a single call ([`Call::interceptor`](crate::Call::interceptor))
/// are within those of the client, hooks are around them all.
///
/// It runs on the caller's task: a panic in it goes to the caller, and dropping the call drops its future.
pub trait CallInterceptor: Send + Sync + 'static {
    /// Makes the call, by way of `next`, or answers it otherwise. A response that is not of the method's type fails the call
    /// with `internal`.
    fn call(&self, call: Outgoing, next: NextCall) -> BoxFuture<Result<AnyMessage, Error>>;
}

impl<F, Fut> CallInterceptor for F
where
    F: Fn(Outgoing, NextCall) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<AnyMessage, Error>> + Send + 'static,
{
    fn call(&self, call: Outgoing, next: NextCall) -> BoxFuture<Result<AnyMessage, Error>> {
        Box::pin(self(call, next))
    }
}

impl ClientOptions {
    /// Puts an interceptor around every unary call, within those that were added before.
    #[must_use]
    pub fn interceptor(mut self, interceptor: impl CallInterceptor) -> Self {
        self.around.interceptors.push(Arc::new(interceptor));
        self
    }
}

/// What an interceptor is around: the next one, or at last the call itself. Cheap to clone.
#[derive(Clone)]
pub struct NextCall {
    chain: Arc<Chain>,
    position: usize,
}

struct Chain {
    client: Client,
    route: Route,
    /// The interceptors of this call alone.
    own: Vec<Arc<dyn CallInterceptor>>,
    /// Makes a call whose types are the method's.
    make: fn(&Chain, Outgoing) -> BoxFuture<Result<AnyMessage, Error>>,
}

impl NextCall {
    /// Makes the call, once for each time that this is run. Dropping the future cancels it.
    pub fn run(&self, call: Outgoing) -> BoxFuture<Result<AnyMessage, Error>> {
        let chain = &self.chain;
        let interceptor = chain.client.around().interceptors.iter().chain(&chain.own).nth(self.position);
        match interceptor {
            Some(interceptor) => {
                let chain = Arc::clone(chain);
                interceptor.call(call, Self { chain, position: self.position + 1 })
            }
            None => (chain.make)(chain, call),
        }
    }

    /// Resolves when the runtime of the client has shut down, so that no sleep on it ends.
    pub(crate) async fn abandoned(&self) {
        self.chain.client.driver().abandoned().await;
    }

    /// The runtime of the client, for its clock and to sleep.
    pub fn runtime(&self) -> &Arc<dyn Runtime> {
        &self.chain.client.driver().runtime
    }
}

impl std::fmt::Debug for NextCall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NextCall").field("route", &self.chain.route).finish_non_exhaustive()
    }
}

/// A call with all that is around it.
pub(crate) async fn intercepted<Req: Message + 'static, Res: Message + Default + 'static>(
    client: Client,
    route: Route,
    request: Req,
    options: CallOptions,
    own: Vec<Arc<dyn CallInterceptor>>,
) -> Result<Res, Error> {
    let info = CallInfo::from(route.clone());
    let request = AnyMessage::new(request);
    client.around().hooks.on_request(&info, &request);
    let call = Outgoing::new(request.clone(), options, info.clone());
    let chain = Chain { client: client.clone(), route, own, make: make::<Req, Res> };
    let next = NextCall { chain: Arc::new(chain), position: 0 };
    let result = next.run(call).await.and_then(|response| response.expect::<Res>().map(|()| response));
    client.around().hooks.on_response(&info, &request, result.as_ref());
    result?.into_message()
}

fn make<Req: Message + 'static, Res: Message + Default + 'static>(
    chain: &Chain,
    call: Outgoing,
) -> BoxFuture<Result<AnyMessage, Error>> {
    let (client, route) = (chain.client.clone(), chain.route.clone());
    Box::pin(async move {
        let Outgoing { message, options, .. } = call;
        message.expect::<Req>()?;
        let payload = message.encode_to_vec();
        drop(message);
        Calling::<Res>::new(client, route, payload, options).await.map(AnyMessage::new)
    })
}
