//! Services and methods, as generated code describes them.

use std::sync::{Arc, OnceLock};

use psrpc_engine::Route;
use psrpc_engine::proto::{ErrorCode, MethodProperties, Text};

use crate::error::Error;

/// A service: its name on the wire and its methods.
#[derive(Debug)]
pub struct Service {
    /// The name on the wire.
    pub name: &'static str,
    /// Its methods; each knows its own index in here.
    pub methods: &'static [Method],
}

/// A method of a service.
#[derive(Debug)]
#[non_exhaustive]
pub struct Method {
    /// Its index in the methods of its service.
    pub index: usize,
    /// The name on the wire.
    pub name: &'static str,
    /// How its calls are routed.
    pub properties: MethodProperties,
    /// What it is for.
    pub kind: MethodKind,
    /// The full protobuf name of its request; of what a client sends on its streams. Empty where it
    /// does not matter.
    pub request: &'static str,
    /// The full protobuf name of its response; of what a server sends on its streams, or publishes.
    /// Empty where it does not matter, which is not with subscriptions.
    pub response: &'static str,
}

/// What a method is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MethodKind {
    /// Clients call it, and one server answers, or all of them, as its routing says.
    Call,
    /// Clients open streams with it.
    Stream,
    /// Clients subscribe to what servers publish.
    Subscription,
}

impl Method {
    /// A method to be called.
    pub const fn call(index: usize, name: &'static str, properties: MethodProperties) -> Self {
        Self { index, name, properties, kind: MethodKind::Call, request: "", response: "" }
    }

    /// A method that opens streams.
    pub const fn stream(index: usize, name: &'static str, properties: MethodProperties) -> Self {
        Self { kind: MethodKind::Stream, ..Self::call(index, name, properties) }
    }

    /// A method to subscribe to.
    pub const fn subscription(index: usize, name: &'static str, properties: MethodProperties) -> Self {
        Self { kind: MethodKind::Subscription, ..Self::call(index, name, properties) }
    }

    /// The same method with the full protobuf names of its messages.
    #[must_use]
    pub const fn messages(self, request: &'static str, response: &'static str) -> Self {
        Self { request, response, ..self }
    }
}

/// Routes of the methods of a service, worked out once where they have no topic.
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

    /// The route of a method on a topic.
    ///
    /// # Errors
    ///
    /// `invalid_argument` when the method is not of this service, or the topic cannot be carried.
    pub(crate) fn route(&self, method: &Method, topic: &[&str]) -> Result<Route, Error> {
        if self.service.methods.get(method.index).is_none_or(|own| own.name != method.name) {
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
        let known = &self.without_topic[method.index];
        match known.get() {
            Some(route) => Ok(route.clone()),
            None => {
                let route = make()?;
                Ok(known.get_or_init(|| route).clone())
            }
        }
    }

    /// The route of a method that is for something, on a topic.
    ///
    /// # Errors
    ///
    /// As [`route`](Self::route), and `invalid_argument` when the method is for something else.
    pub(crate) fn route_for(
        &self,
        kind: MethodKind,
        method: &Method,
        topic: &[&str],
    ) -> Result<Route, Error> {
        if method.kind == kind {
            return self.route(method, topic);
        }
        let is = |kind| match kind {
            MethodKind::Call => "to be called",
            MethodKind::Stream => "a stream",
            MethodKind::Subscription => "a subscription",
        };
        let (service, method, own) = (self.service.name, method.name, method.kind);
        let text = format!("{service}.{method} is {}, not {}", is(own), is(kind));
        Err(Error::new(ErrorCode::InvalidArgument, text).unsent())
    }
}
