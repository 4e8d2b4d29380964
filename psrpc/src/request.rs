//! Requests, as passed to handlers.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use psrpc_engine::proto::{Metadata, Text};
use psrpc_engine::{Route, Time, WallTime};

use crate::cancellation::CancellationToken;
use crate::client::within;
use crate::client::within::Scope;
use crate::info::CallInfo;
use crate::log::Label;
use crate::runtime::Runtime;

/// A request, as passed to a handler: the message and its context. Dereferences to the message.
pub struct Request<T> {
    pub(crate) message: T,
    pub(crate) context: RequestContext,
}

pub(crate) struct RequestContext {
    pub(crate) route: Route,
    pub(crate) client_id: Text,
    pub(crate) request_id: Text,
    pub(crate) metadata: Metadata,
    pub(crate) sent_at: WallTime,
    pub(crate) deadline: Time,
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) token: Arc<CancellationToken>,
}

impl<T> Request<T> {
    /// Returns the message.
    pub fn into_message(self) -> T {
        self.message
    }

    /// Returns the request with its message replaced by `map`.
    pub fn map<U>(self, map: impl FnOnce(T) -> U) -> Request<U> {
        Request { message: map(self.message), context: self.context }
    }

    /// Returns the request with its message replaced by `map`, which may fail.
    ///
    /// # Errors
    ///
    /// Those of `map`.
    pub fn try_map<U, E>(self, map: impl FnOnce(T) -> Result<U, E>) -> Result<Request<U>, E> {
        Ok(Request { message: map(self.message)?, context: self.context })
    }

    /// Returns the metadata that the caller sent.
    pub fn metadata(&self) -> &Metadata {
        &self.context.metadata
    }

    /// Returns a mutable reference to the metadata, for interceptors.
    pub fn metadata_mut(&mut self) -> &mut Metadata {
        &mut self.context.metadata
    }

    /// Returns the service, method and topic of the call.
    pub fn info(&self) -> CallInfo {
        self.context.route.clone().into()
    }

    /// Returns the id of the client.
    pub fn client_id(&self) -> &str {
        self.context.client_id.as_str()
    }

    /// Returns the id of the call, which is unique within its client.
    pub fn request_id(&self) -> &str {
        self.context.request_id.as_str()
    }

    /// Returns the name of the service on the wire.
    pub fn service(&self) -> &str {
        self.context.route.service().as_str()
    }

    /// Returns the name of the method on the wire.
    pub fn method(&self) -> &str {
        self.context.route.method().as_str()
    }

    /// Returns the parts of the topic. Empty for a method without topics.
    pub fn topic(&self) -> &[Text] {
        self.context.route.topic()
    }

    /// Returns when the caller sent the request, by the caller's wall clock.
    pub fn sent_at(&self) -> WallTime {
        self.context.sent_at
    }

    /// Returns when the caller gives up, on the runtime's monotonic clock. The handler's future is
    /// dropped at that time. Spawn a task for work that must continue. Calls [within] the request
    /// end by then.
    ///
    /// [within]: crate::Call::within
    pub fn deadline(&self) -> Time {
        self.context.deadline
    }

    /// Returns how long the caller still waits.
    pub fn remaining(&self) -> Duration {
        self.context.deadline.since(self.context.runtime.now().time)
    }

    /// Returns the label of the request in log events.
    pub(crate) fn label(&self) -> Label {
        Label::of_request(&self.context.route, &self.context.request_id)
    }

    /// Returns the runtime of the server, for its clock, to sleep and to spawn.
    pub fn runtime(&self) -> &Arc<dyn Runtime> {
        &self.context.runtime
    }
}

impl<T> within::sealed::HandlerInput for Request<T> {
    fn scope(&self) -> Scope {
        let RequestContext { token, deadline, runtime, metadata, .. } = &self.context;
        Scope::new(token, Some(*deadline), runtime, metadata)
    }
}

impl<T> Deref for Request<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.message
    }
}

impl<T: std::fmt::Debug> std::fmt::Debug for Request<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Request")
            .field("message", &self.message)
            .field("route", &self.context.route)
            .field("client_id", &self.context.client_id)
            .field("request_id", &self.context.request_id)
            .finish_non_exhaustive()
    }
}
