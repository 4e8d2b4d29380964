//! Unary calls on their way from the caller: their options, and the interceptors around them.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use psrpc_engine::Time;
use psrpc_engine::proto::{Metadata, Text};

use crate::error::Error;
use crate::info::CallInfo;
use crate::message::AnyMessage;
use crate::runtime::{BoxFuture, Runtime};
use crate::selection::Selection;

/// Options of a call. Keep a set of them to use it for several calls
/// ([`Call::options`](crate::Call::options)).
///
/// ```
/// # use std::time::Duration;
/// let patient = psrpc::CallOptions::new().timeout(Duration::from_secs(60)).metadata("shop", "corner");
/// ```
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct CallOptions {
    /// How long the call may take from when it is sent; `None` for the client's default.
    pub timeout: Option<Duration>,
    /// When the caller gives up, on the monotonic clock of the client's runtime, if that is
    /// earlier.
    pub deadline: Option<Time>,
    /// How the call picks its server.
    pub selection: Selection,
    /// What is sent along.
    pub metadata: Metadata,
    /// Whether [`Retry`](crate::middleware::Retry) has set the timeout, which a `Retry` within it
    /// may replace; a timeout that the caller has set stays.
    pub(crate) retry_set_timeout: bool,
    pub(crate) interceptors: Vec<Arc<dyn CallInterceptor>>,
}

impl CallOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// How long the call may take from when it is sent. Default: that of the client.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        (self.timeout, self.retry_set_timeout) = (Some(timeout), false);
        self
    }

    /// When the caller gives up, on the monotonic clock of the client's runtime; the earlier of
    /// this and the timeout counts.
    #[must_use]
    pub fn deadline(mut self, deadline: Time) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// How the call picks its server. Default: that of the method.
    #[must_use]
    pub fn selection(mut self, selection: Selection) -> Self {
        self.selection = selection;
        self
    }

    /// Sends an entry of metadata along, replacing one of the same name.
    #[must_use]
    pub fn metadata(mut self, name: impl Into<Text>, value: impl Into<Text>) -> Self {
        self.metadata.insert(name, value);
        self
    }

    /// Puts an interceptor around a unary call, within those of the client and those that were
    /// added before. Multi calls and streams have interceptors of their own kinds, and ignore
    /// it, as does a call that is on its way through interceptors already.
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

    /// Adds another set of options: what it sets replaces what is set here, entry by entry for
    /// metadata and option by option for the selection. Its interceptors are within those that
    /// are here.
    #[must_use]
    pub fn with(mut self, bundle: CallOptions) -> Self {
        if let Some(timeout) = bundle.timeout {
            self = self.timeout(timeout);
        }
        self.deadline = bundle.deadline.or(self.deadline);
        self.selection = self.selection.with(bundle.selection);
        self.interceptors.extend(bundle.interceptors);
        self.with_metadata(&bundle.metadata)
    }

    /// Sends entries of metadata along, each replacing one of the same name.
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
        let Self { timeout, deadline, selection, metadata, retry_set_timeout: _, interceptors } = self;
        f.debug_struct("CallOptions")
            .field("timeout", timeout)
            .field("deadline", deadline)
            .field("selection", selection)
            .field("metadata", metadata)
            .field("interceptors", &interceptors.len())
            .finish()
    }
}

/// A unary call on its way through the interceptors of a client.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct OutgoingCall {
    /// The request. Another takes its place if it is of the same type; one of another type fails the call.
    pub message: AnyMessage,
    /// How it is made.
    pub options: CallOptions,
    info: CallInfo,
}

impl OutgoingCall {
    pub(crate) fn new(message: AnyMessage, options: CallOptions, info: CallInfo) -> Self {
        Self { message, options, info }
    }

    /// What it goes to.
    pub fn info(&self) -> &CallInfo {
        &self.info
    }
}

/// Code around the unary calls of a client: it may change the call, make it or not, several times,
/// and change its result.
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
/// The first that a client was given is the outermost. Those of a single call
/// ([`Call::interceptor`](crate::Call::interceptor)) are within those of the client, hooks are
/// around them all.
///
/// It runs on the caller's task: a panic in it goes to the caller, and dropping the call drops its
/// future.
pub trait CallInterceptor: Send + Sync + 'static {
    /// Makes the call, by way of `next`, or answers it otherwise. A response that is not of the method's type fails the call
    /// with `internal`.
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

/// What an interceptor is around: the next one, or at last the call itself. Cheap to clone.
#[derive(Clone)]
pub struct NextCall {
    chain: Arc<dyn CallChain>,
    position: usize,
}

/// A call and the interceptors around it, as the client keeps them.
pub(crate) trait CallChain: Send + Sync {
    /// Returns the interceptor at a position, the outermost first.
    fn interceptor(&self, position: usize) -> Option<&Arc<dyn CallInterceptor>>;
    /// Makes the call itself.
    fn make(&self, call: OutgoingCall) -> BoxFuture<Result<AnyMessage, Error>>;
    fn runtime(&self) -> &Arc<dyn Runtime>;
    /// Resolves when the runtime has shut down, so that no sleep on it ends.
    fn abandoned(&self) -> BoxFuture<()>;
}

impl NextCall {
    /// The outermost interceptor of a call.
    pub(crate) fn new(chain: Arc<dyn CallChain>) -> Self {
        Self { chain, position: 0 }
    }

    /// Makes the call, once for each time that this is run. Dropping the future cancels it.
    pub fn run(&self, call: OutgoingCall) -> BoxFuture<Result<AnyMessage, Error>> {
        let chain = &self.chain;
        match chain.interceptor(self.position) {
            Some(interceptor) => {
                interceptor.call(call, Self { chain: Arc::clone(chain), position: self.position + 1 })
            }
            None => chain.make(call),
        }
    }

    /// Resolves when the runtime of the client has shut down, so that no sleep on it ends.
    pub(crate) fn abandoned(&self) -> BoxFuture<()> {
        self.chain.abandoned()
    }

    /// The runtime of the client, for its clock and to sleep.
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
