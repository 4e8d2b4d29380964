//! Hooks: functions that see what a client sends and gets, and change nothing.

use std::fmt;
use std::sync::Arc;

use crate::{AnyMessage, CallInfo, ClientOptions, Error};

type RequestHook = Arc<dyn Fn(&CallInfo, &AnyMessage) + Send + Sync>;
type ResponseHook = Arc<dyn Fn(&CallInfo, &AnyMessage, Result<&AnyMessage, &Error>) + Send + Sync>;

/// The hooks of a client.
#[derive(Clone, Default)]
pub(crate) struct Hooks {
    requests: Vec<RequestHook>,
    responses: Vec<ResponseHook>,
}

impl ClientOptions {
    /// Calls a function with every request, as soon as the call is made: when it is first polled, before any interceptor.
    /// Several are called in the order in which they were added.
    ///
    /// It runs on the caller's task, which it must not block and to which a panic in it goes.
    #[must_use]
    pub fn request_hook(mut self, hook: impl Fn(&CallInfo, &AnyMessage) + Send + Sync + 'static) -> Self {
        self.around.hooks.requests.push(Arc::new(hook));
        self
    }

    /// Calls a function with every request and what came of it, just before the caller gets that: after all interceptors.
    /// Several are called in the order in which they were added. A call that is dropped has no response.
    ///
    /// It runs on the caller's task, which it must not block and to which a panic in it goes.
    #[must_use]
    pub fn response_hook(
        mut self,
        hook: impl Fn(&CallInfo, &AnyMessage, Result<&AnyMessage, &Error>) + Send + Sync + 'static,
    ) -> Self {
        self.around.hooks.responses.push(Arc::new(hook));
        self
    }
}

impl Hooks {
    pub(crate) fn is_empty(&self) -> bool {
        self.requests.is_empty() && self.responses.is_empty()
    }

    pub(crate) fn append(&mut self, mut other: Self) {
        self.requests.append(&mut other.requests);
        self.responses.append(&mut other.responses);
    }

    pub(crate) fn on_request(&self, info: &CallInfo, request: &AnyMessage) {
        self.requests.iter().for_each(|hook| hook(info, request));
    }

    pub(crate) fn on_response(
        &self,
        info: &CallInfo,
        request: &AnyMessage,
        result: Result<&AnyMessage, &Error>,
    ) {
        self.responses.iter().for_each(|hook| hook(info, request, result));
    }
}

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} request hooks, {} response hooks", self.requests.len(), self.responses.len())
    }
}
