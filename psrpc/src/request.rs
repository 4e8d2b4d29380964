//! The request, as a handler gets it.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use psrpc_engine::proto::{Metadata, Text};
use psrpc_engine::{Route, Time, WallTime};

use crate::info::CallInfo;
use crate::log::Label;
use crate::runtime::Runtime;

/// A request as its handler gets it: the message, and what is known of the call. Dereferences to
/// the message.
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
}

impl<T> Request<T> {
    /// The message alone.
    pub fn into_message(self) -> T {
        self.message
    }

    /// The same request with another message, which `map` makes of this one.
    pub fn map<U>(self, map: impl FnOnce(T) -> U) -> Request<U> {
        Request { message: map(self.message), context: self.context }
    }

    /// The same request with another message, if `map` makes one of this one.
    ///
    /// # Errors
    ///
    /// Those of `map`.
    pub fn try_map<U, E>(self, map: impl FnOnce(T) -> Result<U, E>) -> Result<Request<U>, E> {
        Ok(Request { message: map(self.message)?, context: self.context })
    }

    /// What the caller sent along.
    pub fn metadata(&self) -> &Metadata {
        &self.context.metadata
    }

    /// What the caller sent along, for interceptors to change.
    pub fn metadata_mut(&mut self) -> &mut Metadata {
        &mut self.context.metadata
    }

    /// What is called.
    pub fn info(&self) -> CallInfo {
        self.context.route.clone().into()
    }

    /// Who calls.
    pub fn client_id(&self) -> &str {
        self.context.client_id.as_str()
    }

    /// The call, unique within its client.
    pub fn request_id(&self) -> &str {
        self.context.request_id.as_str()
    }

    /// The service, by its name on the wire.
    pub fn service(&self) -> &str {
        self.context.route.service().as_str()
    }

    /// The method, by its name on the wire.
    pub fn method(&self) -> &str {
        self.context.route.method().as_str()
    }

    /// The parts of the topic that the request came for; none for a method without topics.
    pub fn topic(&self) -> &[Text] {
        self.context.route.topic()
    }

    /// When the caller sent it, by the caller's wall clock.
    pub fn sent_at(&self) -> WallTime {
        self.context.sent_at
    }

    /// When the caller gives up, on the runtime's monotonic clock. The handler's future is dropped
    /// then, since nobody waits for its answer any more: what must be done all the same belongs
    /// into a task of its own.
    pub fn deadline(&self) -> Time {
        self.context.deadline
    }

    /// How long the caller will still wait.
    pub fn remaining(&self) -> Duration {
        self.context.deadline.since(self.context.runtime.now().time)
    }

    /// What log lines name the request by.
    pub(crate) fn label(&self) -> Label {
        Label::of_request(&self.context.route, &self.context.request_id)
    }

    /// The runtime of the server, for its clock, to sleep and to spawn.
    pub fn runtime(&self) -> &Arc<dyn Runtime> {
        &self.context.runtime
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
