//! Interceptors of unary calls, and the options of a call.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use psrpc_engine::Time;
use psrpc_engine::proto::{Metadata, Text};

use crate::client::within::{HandlerInput, Scope};
use crate::error::Error;
use crate::info::CallInfo;
use crate::message::AnyMessage;
use crate::runtime::{BoxFuture, Runtime};
use crate::selection::Selection;

/// Options of a call. The same options can be used for several calls
/// ([`Call::options`](crate::Call::options)).
///
/// ```
/// # use std::time::Duration;
/// let patient = psrpc::CallOptions::new().timeout(Duration::from_secs(60)).metadata("shop", "corner");
/// ```
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct CallOptions {
    /// How long the call may take after it is sent; `None` for the client's default.
    pub timeout: Option<Duration>,
    /// The time at which the caller gives up, on the monotonic clock of the client's runtime. The
    /// earlier of this and the timeout applies.
    pub deadline: Option<Time>,
    /// How the call selects its server.
    pub selection: Selection,
    /// Whether to wait for a subscriber if the bus knows that there is none.
    pub wait_for_subscriber: bool,
    /// The metadata of the request.
    pub metadata: Metadata,
    /// Whether [`Retry`](crate::middleware::Retry) set the timeout. An inner `Retry` may replace
    /// such a timeout, but not one that the caller set.
    pub(crate) retry_set_timeout: bool,
    pub(crate) interceptors: Vec<Arc<dyn CallInterceptor>>,
    /// The handler that the call is made within, until the call starts.
    pub(crate) scope: Option<Scope>,
}

impl CallOptions {
    /// Returns the default options.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets how long the call may take after it is sent. Default: the client's timeout.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        (self.timeout, self.retry_set_timeout) = (Some(timeout), false);
        self
    }

    /// Sets the time at which the caller gives up, on the monotonic clock of the client's runtime.
    /// The earlier of this and the timeout applies.
    #[must_use]
    pub fn deadline(mut self, deadline: Time) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Sets how the call selects its server. Default: the method's own selection.
    #[must_use]
    pub fn selection(mut self, selection: Selection) -> Self {
        self.selection = selection;
        self
    }

    /// Waits for a server to subscribe if the bus knows that there is none; see
    /// [`Call::wait_for_subscriber`](crate::Call::wait_for_subscriber). Multi calls ignore it.
    #[must_use]
    pub fn wait_for_subscriber(mut self) -> Self {
        self.wait_for_subscriber = true;
        self
    }

    /// Adds a metadata entry, replacing an entry of the same name.
    #[must_use]
    pub fn metadata(mut self, name: impl Into<Text>, value: impl Into<Text>) -> Self {
        self.metadata.insert(name, value);
        self
    }

    /// Makes the call within a handler; see [`Call::within`](crate::Call::within). It has no effect
    /// on a call that is already passing through interceptors.
    #[must_use]
    pub fn within(mut self, input: &impl HandlerInput) -> Self {
        self.scope = Some(input.scope());
        self
    }

    /// Adds an interceptor around a unary call. It runs inside those of the client and those added
    /// before.
    ///
    /// Multi calls and streams have their own kinds of interceptors and ignore this one. It also
    /// has no effect on a call that is already passing through interceptors.
    ///
    /// ```
    /// # use psrpc::CallOptions;
    /// use psrpc::middleware::Retry;
    ///
    /// let stubborn = CallOptions::new().interceptor(Retry::new().attempts(9));
    /// ```
    #[must_use]
    pub fn interceptor(mut self, interceptor: impl CallInterceptor) -> Self {
        self.interceptors.push(Arc::new(interceptor));
        self
    }

    /// Merges another set of options into this one. Its values take precedence, per entry for
    /// metadata and per option for the selection. Its interceptors run inside those in this set.
    #[must_use]
    pub fn with(mut self, bundle: CallOptions) -> Self {
        if let Some(timeout) = bundle.timeout {
            self = self.timeout(timeout);
        }
        self.deadline = bundle.deadline.or(self.deadline);
        self.wait_for_subscriber |= bundle.wait_for_subscriber;
        self.selection = self.selection.with(bundle.selection);
        self.interceptors.extend(bundle.interceptors);
        self.scope = bundle.scope.or(self.scope);
        self.with_metadata(&bundle.metadata)
    }

    /// Adds metadata entries, replacing entries of the same names.
    #[must_use]
    pub fn with_metadata(mut self, metadata: &Metadata) -> Self {
        for (name, value) in metadata.iter() {
            self.metadata.insert(name.clone(), value.clone());
        }
        self
    }
}

impl fmt::Debug for CallOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            timeout,
            deadline,
            selection,
            wait_for_subscriber,
            metadata,
            retry_set_timeout: _,
            interceptors,
            scope,
        } = self;
        f.debug_struct("CallOptions")
            .field("timeout", timeout)
            .field("deadline", deadline)
            .field("selection", selection)
            .field("wait_for_subscriber", wait_for_subscriber)
            .field("metadata", metadata)
            .field("interceptors", &interceptors.len())
            .field("within", &scope.is_some())
            .finish()
    }
}

/// A unary or multi call on its way through the interceptors of a client.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct OutgoingCall {
    /// The request. It may be replaced by another message of the same type; a message of another
    /// type fails the call.
    pub message: AnyMessage,
    /// The options of the call.
    pub options: CallOptions,
    info: CallInfo,
}

impl OutgoingCall {
    pub(crate) fn new(message: AnyMessage, options: CallOptions, info: CallInfo) -> Self {
        Self { message, options, info }
    }

    /// Returns the service, method and topic of the call.
    pub fn info(&self) -> &CallInfo {
        &self.info
    }
}

/// An interceptor of the unary calls of a client. It can change the call and its result, answer the
/// call itself, or make it several times.
///
/// Functions are interceptors too:
///
/// ```
/// use psrpc::{ClientOptions, NextCall, OutgoingCall};
///
/// let options = ClientOptions::new().interceptor(|mut call: OutgoingCall, next: NextCall| async move {
///     call.options.metadata.insert("shop", "corner");
///     next.run(call).await
/// });
/// ```
///
/// The first interceptor added to a client is the outermost. Interceptors of a single call
/// ([`Call::interceptor`](crate::Call::interceptor)) run inside those of the client. Hooks run
/// outside all interceptors.
///
/// An interceptor runs on the caller's task. A panic in it propagates to the caller, and dropping
/// the call drops the interceptor's future.
pub trait CallInterceptor: Send + Sync + 'static {
    /// Makes the call through `next`, or returns a result without it. A response that is not of the
    /// method's type fails the call with `internal`.
    fn call(&self, call: OutgoingCall, next: NextCall) -> BoxFuture<Result<AnyMessage, Error>>;
}

impl<F, Fut> CallInterceptor for F
where
    F: Fn(OutgoingCall, NextCall) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<AnyMessage, Error>> + Send + 'static,
{
    fn call(&self, call: OutgoingCall, next: NextCall) -> BoxFuture<Result<AnyMessage, Error>> {
        Box::pin(self(call, next))
    }
}

/// The rest of the chain: the next interceptor, or the call itself. Cheap to clone.
#[derive(Clone)]
pub struct NextCall {
    chain: Arc<dyn CallChain>,
    position: usize,
}

/// A call and the interceptors around it.
pub(crate) trait CallChain: Send + Sync {
    /// Returns the interceptor at a position, starting with the outermost.
    fn interceptor(&self, position: usize) -> Option<&Arc<dyn CallInterceptor>>;
    /// Makes the call itself.
    fn make(&self, call: OutgoingCall) -> BoxFuture<Result<AnyMessage, Error>>;
    fn runtime(&self) -> &Arc<dyn Runtime>;
    /// Resolves when the runtime has shut down, so that its timers no longer fire.
    fn abandoned(&self) -> BoxFuture<()>;
}

impl NextCall {
    /// Returns the outermost position of a chain.
    pub(crate) fn new(chain: Arc<dyn CallChain>) -> Self {
        Self { chain, position: 0 }
    }

    /// Makes the call. If this is run several times, each run makes a separate call. Dropping the
    /// future cancels the call.
    pub fn run(&self, call: OutgoingCall) -> BoxFuture<Result<AnyMessage, Error>> {
        let chain = &self.chain;
        match chain.interceptor(self.position) {
            Some(interceptor) => {
                interceptor.call(call, Self { chain: Arc::clone(chain), position: self.position + 1 })
            }
            None => chain.make(call),
        }
    }

    /// Resolves when the runtime of the client has shut down, so that its timers no longer fire.
    pub(crate) fn abandoned(&self) -> BoxFuture<()> {
        self.chain.abandoned()
    }

    /// Returns the runtime of the client, for its clock and timers.
    pub fn runtime(&self) -> &Arc<dyn Runtime> {
        self.chain.runtime()
    }
}

impl std::fmt::Debug for NextCall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NextCall").field("position", &self.position).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_replaces_what_it_sets_and_nothing_else() {
        let second = Duration::from_secs(1);
        let bundle = CallOptions::new().timeout(second).metadata("a", "2").metadata("c", "3");
        let options = CallOptions::new()
            .timeout(second * 9)
            .deadline(Time::ZERO + second)
            .selection(Selection::new().minimum_affinity(0.5).maximum_affinity(0.9))
            .metadata("a", "1")
            .metadata("b", "1")
            .with(bundle.selection(Selection::new().maximum_affinity(0.8)));
        assert_eq!((options.timeout, options.deadline), (Some(second), Some(Time::ZERO + second)));
        let metadata: Vec<_> =
            options.metadata.iter().map(|(name, value)| format!("{name}{value}")).collect();
        assert_eq!(metadata, ["a2", "b1", "c3"]);
        let (selection, _) = options.selection.into_parts();
        assert_eq!((selection.minimum_affinity, selection.maximum_affinity), (Some(0.5), Some(0.8)));
    }
}
