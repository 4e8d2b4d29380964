//! Calls within a handler: bounded by its deadline, ended with it, and part of its trace.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use psrpc_engine::proto::{ErrorCode, Metadata, Text};
use psrpc_engine::{Reason, Time};

use super::Client;
use crate::cancellation::CancellationToken;
use crate::error::Error;
use crate::interceptor::CallOptions;
use crate::responses::Responses;
use crate::runtime::Runtime;
use crate::waiting::WaiterKey;

/// The metadata entries of the W3C trace context and baggage. They are passed on to every call
/// within a handler.
const TRACE_CONTEXT: [&str; 3] = ["traceparent", "tracestate", "baggage"];

/// The argument of a handler: a [`Request`](crate::Request) or a
/// [`ServerStream`](crate::ServerStream). Calls can be made [within](crate::Call::within) it.
///
/// This trait is sealed.
pub trait HandlerInput: sealed::HandlerInput {}

impl<T: sealed::HandlerInput> HandlerInput for T {}

pub(crate) mod sealed {
    pub trait HandlerInput {
        /// Returns the scope of the calls within the handler.
        fn scope(&self) -> super::Scope;
    }
}

/// The handler that a call is made within.
#[derive(Clone)]
pub struct Scope(Arc<Inner>);

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope").field("deadline", &self.0.deadline).finish_non_exhaustive()
    }
}

struct Inner {
    token: Arc<CancellationToken>,
    /// The handler's deadline, on the monotonic clock of its runtime. `None` for the handler of a
    /// stream.
    deadline: Option<Time>,
    runtime: Arc<dyn Runtime>,
    /// The metadata of the request.
    metadata: Metadata,
}

impl Scope {
    pub(crate) fn new(
        token: &Arc<CancellationToken>,
        deadline: Option<Time>,
        runtime: &Arc<dyn Runtime>,
        metadata: &Metadata,
    ) -> Self {
        let (token, runtime, metadata) = (Arc::clone(token), Arc::clone(runtime), metadata.clone());
        Self(Arc::new(Inner { token, deadline, runtime, metadata }))
    }

    /// Returns the handler's deadline on the monotonic clock of another runtime.
    fn deadline_on(&self, runtime: &dyn Runtime) -> Option<Time> {
        let deadline = self.0.deadline?;
        // This clock is read first, so that an inexact deadline is too early, not too late.
        let now = runtime.now().time;
        Some(now + deadline.since(self.0.runtime.now().time))
    }

    /// Bounds the deadline of a call of `client`, and passes on metadata.
    fn bound(&self, options: &mut CallOptions, client: &Client) {
        if let Some(deadline) = self.deadline_on(&*client.driver().runtime) {
            options.deadline = Some(options.deadline.map_or(deadline, |own| own.min(deadline)));
        }
        let names = client.propagated_metadata().iter().map(Text::as_str);
        for name in TRACE_CONTEXT.into_iter().chain(names) {
            if let (None, Some(value)) = (options.metadata.get(name), self.0.metadata.get(name)) {
                options.metadata.insert(name, value.clone());
            }
        }
    }
}

impl Client {
    /// Returns a client whose calls are made [within](crate::Call::within) a handler. It is the
    /// same client on the wire. Subscriptions are not affected.
    ///
    /// ```
    /// # use psrpc::{Client, Error, Method, Request};
    /// # type Ask = Request<String>;
    /// # async fn example(client: Client, method: &'static Method, request: Ask) -> Result<(), Error> {
    /// let client = client.within(&request);
    /// let price: String = client.call(method, &[], "price".to_owned()).await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn within(&self, input: &impl HandlerInput) -> Self {
        Self { scope: Some(input.scope()), ..self.clone() }
    }

    /// Applies the scope of a call, if it has one, to its options.
    pub(super) fn enter_scope(&self, options: &mut CallOptions) -> Option<Scope> {
        let scope = options.scope.take()?;
        scope.bound(options, self);
        Some(scope)
    }
}

/// A future or stream of responses that ends with a handler.
pub(super) struct Within<T> {
    /// `None` once it has ended.
    inner: Option<Pin<Box<T>>>,
    /// Whether the inner future or stream was polled, so that the call may have been sent.
    has_started: bool,
    scope: Scope,
    key: WaiterKey,
}

impl<T> Within<T> {
    pub(super) fn new(inner: T, scope: Scope) -> Self {
        Self { inner: Some(Box::pin(inner)), has_started: false, scope, key: WaiterKey::default() }
    }

    /// Drops the inner future or stream and returns an error if the handler has ended.
    fn check_handler(&mut self, cx: &Context<'_>) -> Result<(), Error> {
        if !self.scope.0.token.poll_nested(&mut self.key, cx) {
            self.has_started = true;
            return Ok(());
        }
        self.inner = None;
        let text = "the handler that made this call has ended";
        let error = Error::new(ErrorCode::Canceled, text).with_reason(Reason::Canceled);
        Err(if self.has_started { error } else { error.unsent() })
    }
}

impl<R, T: Future<Output = Result<R, Error>>> Future for Within<T> {
    type Output = Result<R, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.check_handler(cx)?;
        let inner = self.inner.as_mut().expect("polled after completion");
        let result = ready!(inner.as_mut().poll(cx));
        self.inner = None;
        Poll::Ready(result)
    }
}

impl<R, T: Stream<Item = Result<R, Error>>> Stream for Within<T> {
    type Item = Result<R, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.inner.is_none() {
            return Poll::Ready(None);
        }
        self.check_handler(cx)?;
        let inner = self.inner.as_mut().expect("checked above");
        let next = ready!(inner.as_mut().poll_next(cx));
        if next.is_none() {
            self.inner = None;
        }
        Poll::Ready(next)
    }
}

impl<T> Drop for Within<T> {
    fn drop(&mut self) {
        self.scope.0.token.forget(&mut self.key);
    }
}

impl<Res: Send + 'static> Responses<Res> {
    /// Ends the responses with a handler.
    pub(super) fn within(self, scope: Scope) -> Self {
        let mut responses = Within::<Responses<Res>>::new(self, scope);
        // The call that they belong to was sent.
        responses.has_started = true;
        Responses::new(responses)
    }
}
