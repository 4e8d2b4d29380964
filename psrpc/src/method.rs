//! Descriptions of services and methods, as produced by generated code.

use std::sync::{Arc, OnceLock};

use psrpc_engine::Route;
use psrpc_engine::proto::{ErrorCode, MethodProperties, Text};

use crate::error::Error;

/// The description of a service.
#[derive(Debug)]
pub struct Service {
    /// The name of the service on the wire.
    pub name: &'static str,
    /// The methods of the service. The index of each must equal its [`Method::index`].
    pub methods: &'static [Method],
}

/// The description of a method.
#[derive(Debug)]
#[non_exhaustive]
pub struct Method {
    /// The index of the method in [`Service::methods`].
    pub index: usize,
    /// The name of the method on the wire.
    pub name: &'static str,
    /// How calls of the method are routed.
    pub properties: MethodProperties,
    /// The kind of the method.
    pub kind: MethodKind,
    /// The full protobuf name of the request, or of the messages that a client sends on a stream.
    /// May be empty.
    pub request: &'static str,
    /// The full protobuf name of the response, or of the messages that a server sends on a stream
    /// or publishes. May be empty, except for subscriptions.
    pub response: &'static str,
}

/// The kind of a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MethodKind {
    /// A call, answered by one server or by all of them, depending on the routing.
    Call,
    /// A stream.
    Stream,
    /// A subscription to updates that servers publish.
    Subscription,
}

impl Method {
    /// Returns a method of the kind [`MethodKind::Call`].
    pub const fn call(index: usize, name: &'static str, properties: MethodProperties) -> Self {
        Self { index, name, properties, kind: MethodKind::Call, request: "", response: "" }
    }

    /// Returns a method of the kind [`MethodKind::Stream`].
    pub const fn stream(index: usize, name: &'static str, properties: MethodProperties) -> Self {
        Self { kind: MethodKind::Stream, ..Self::call(index, name, properties) }
    }

    /// Returns a method of the kind [`MethodKind::Subscription`].
    pub const fn subscription(index: usize, name: &'static str, properties: MethodProperties) -> Self {
        Self { kind: MethodKind::Subscription, ..Self::call(index, name, properties) }
    }

    /// Sets the full protobuf names of the messages.
    #[must_use]
    pub const fn messages(self, request: &'static str, response: &'static str) -> Self {
        Self { request, response, ..self }
    }
}

/// The routes of the methods of a service. Routes without a topic are computed once.
#[derive(Clone)]
pub(crate) struct Routes {
    service: &'static Service,
    without_topic: Arc<[OnceLock<Route>]>,
}

impl Routes {
    pub(crate) fn new(service: &'static Service) -> Self {
        let without_topic = service.methods.iter().map(|_| OnceLock::new()).collect();
        Self { service, without_topic }
    }

    pub(crate) fn service(&self) -> &'static Service {
        self.service
    }

    /// Returns the route of a method on a topic.
    ///
    /// # Errors
    ///
    /// Returns `invalid_argument` if the method is not of this service or the topic is invalid.
    pub(crate) fn route(&self, method: &Method, topic: &[&str]) -> Result<Route, Error> {
        if self.service.methods.get(method.index).is_none_or(|known| known.name != method.name) {
            let text = format!("{} is not a method of {}", method.name, self.service.name);
            return Err(Error::new(ErrorCode::InvalidArgument, text).unsent());
        }
        let (service, name) = (Text::from_static(self.service.name), Text::from_static(method.name));
        let make = || match method.kind {
            MethodKind::Stream => Route::stream(service, name, method.properties, topic),
            _ => Route::new(service, name, method.properties, topic),
        };
        if !topic.is_empty() {
            return Ok(make()?);
        }
        let cached = &self.without_topic[method.index];
        match cached.get() {
            Some(route) => Ok(route.clone()),
            None => {
                let route = make()?;
                Ok(cached.get_or_init(|| route).clone())
            }
        }
    }

    /// Returns the route of a method on a topic, for use as the given kind.
    ///
    /// # Errors
    ///
    /// Those of [`route`](Self::route), and `invalid_argument` if the method is of another kind.
    pub(crate) fn route_for(
        &self,
        kind: MethodKind,
        method: &Method,
        topic: &[&str],
    ) -> Result<Route, Error> {
        if method.kind == kind {
            return self.route(method, topic);
        }
        let describe = |kind| match kind {
            MethodKind::Call => "a call",
            MethodKind::Stream => "a stream",
            MethodKind::Subscription => "a subscription",
        };
        let (service, name, method_kind) = (self.service.name, method.name, method.kind);
        let text = format!("{service}.{name} is {}, not {}", describe(method_kind), describe(kind));
        Err(Error::new(ErrorCode::InvalidArgument, text).unsent())
    }
}
