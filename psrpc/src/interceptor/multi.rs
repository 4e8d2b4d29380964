//! Interceptors of multi calls, in the client.

use std::future::Future;
use std::sync::Arc;

use prost::Message;
use psrpc_engine::Route;

use super::Outgoing;
use crate::client::Client;
use crate::runtime::{BoxFuture, Runtime};
use crate::{Answers, AnyMessage, CallInfo, CallOptions, ClientOptions, Error, multi};

/// Code around the multi calls of a client: it may change the call, make it or not, and change its answers.
///
/// Functions are interceptors too:
///
/// ```
/// use psrpc::{ClientOptions, NextMultiCall, Outgoing};
///
/// let options = ClientOptions::new().multi_interceptor(|call: Outgoing, next: NextMultiCall| async move {
///     let answers = next.run(call).await?;
///     Ok(answers.map_answers(|answer| {
///         println!("{answer:?}");
///         answer
///     }))
/// });
/// ```
///
/// The first that a client was given is the outermost. Those of a single call
/// ([`MultiCall::interceptor`](crate::MultiCall::interceptor)) are within those of the client. Request hooks are called before them
/// all, and response hooks with every answer after them all.
///
/// It runs on the caller's task: a panic in it goes to the caller, and dropping the call or its answers drops its own.
pub trait MultiCallInterceptor: Send + Sync + 'static {
    /// Makes the call, by way of `next`, or answers it otherwise. An answer that is not of the method's type is an error,
    /// `internal`, in its place.
    fn call(&self, call: Outgoing, next: NextMultiCall) -> BoxFuture<Result<Answers<AnyMessage>, Error>>;
}

impl<F, Fut> MultiCallInterceptor for F
where
    F: Fn(Outgoing, NextMultiCall) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Answers<AnyMessage>, Error>> + Send + 'static,
{
    fn call(&self, call: Outgoing, next: NextMultiCall) -> BoxFuture<Result<Answers<AnyMessage>, Error>> {
        Box::pin(self(call, next))
    }
}

impl ClientOptions {
    /// Puts an interceptor around every multi call, within those that were added before.
    #[must_use]
    pub fn multi_interceptor(mut self, interceptor: impl MultiCallInterceptor) -> Self {
        self.around.multi_interceptors.push(Arc::new(interceptor));
        self
    }
}

/// What an interceptor is around: the next one, or at last the call itself. Cheap to clone.
#[derive(Clone)]
pub struct NextMultiCall {
    chain: Arc<Chain>,
    position: usize,
}

struct Chain {
    client: Client,
    route: Route,
    expected: Option<usize>,
    /// The interceptors of this call alone.
    own: Vec<Arc<dyn MultiCallInterceptor>>,
    /// Makes a call whose types are the method's.
    make: fn(&Chain, Outgoing) -> Result<Answers<AnyMessage>, Error>,
}

impl NextMultiCall {
    /// Makes the call, once for each time that this is run.
    pub fn run(&self, call: Outgoing) -> BoxFuture<Result<Answers<AnyMessage>, Error>> {
        let chain = Arc::clone(&self.chain);
        let interceptor =
            chain.client.around().multi_interceptors.iter().chain(&chain.own).nth(self.position);
        match interceptor {
            Some(interceptor) => {
                let chain = Arc::clone(&chain);
                interceptor.call(call, Self { chain, position: self.position + 1 })
            }
            None => Box::pin(async move { (chain.make)(&chain, call) }),
        }
    }

    /// The runtime of the client, for its clock and to sleep.
    pub fn runtime(&self) -> &Arc<dyn Runtime> {
        &self.chain.client.driver().runtime
    }
}

impl std::fmt::Debug for NextMultiCall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NextMultiCall").field("route", &self.chain.route).finish_non_exhaustive()
    }
}

/// A multi call with all that is around it.
pub(crate) async fn intercepted_multi<Req: Message + 'static, Res: Message + Default + 'static>(
    client: Client,
    route: Route,
    request: Req,
    options: CallOptions,
    expected: Option<usize>,
    own: Vec<Arc<dyn MultiCallInterceptor>>,
) -> Result<Answers<Res>, Error> {
    let info = CallInfo::from(route.clone());
    let request = AnyMessage::new(request);
    client.around().hooks.on_request(&info, &request);
    let call = Outgoing::new(request.clone(), options, info.clone());
    let chain = Chain { client: client.clone(), route, expected, own, make: make::<Req, Res> };
    let answers = NextMultiCall { chain: Arc::new(chain), position: 0 }.run(call).await;
    let hooks = client.around().hooks.clone();
    if let Err(error) = &answers {
        hooks.on_response(&info, &request, Err(error));
    }
    Ok(answers?.map_answers(move |answer| {
        let answer = answer.and_then(|answer| answer.expect::<Res>().map(|()| answer));
        hooks.on_response(&info, &request, answer.as_deref());
        answer?.try_map(AnyMessage::into_message)
    }))
}

fn make<Req: Message + 'static, Res: Message + Default + 'static>(
    chain: &Chain,
    call: Outgoing,
) -> Result<Answers<AnyMessage>, Error> {
    let Outgoing { message, options, .. } = call;
    message.expect::<Req>()?;
    let (client, route) = (chain.client.clone(), chain.route.clone());
    let answers = multi::start::<Res>(client, route, message.encode_to_vec(), options, chain.expected)?;
    Ok(answers.map_answers(|answer| answer?.try_map(|message| Ok(AnyMessage::new(message)))))
}
