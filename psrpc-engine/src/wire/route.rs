//! Routes: a method on a topic, with its precomputed channels.

use alloc::string::ToString;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use psrpc_proto::{Channel, MethodProperties, Text, check_id};

use crate::config::ConfigError;

/// The limit on all parts of a topic together, in bytes.
const TOPIC_BYTES: usize = 1024;

/// A method of a service on a topic, to call or to register. Cheap to clone.
#[derive(Clone)]
pub struct Route(Arc<Inner>);

struct Inner {
    service: Text,
    method: Text,
    topic: Vec<Text>,
    properties: MethodProperties,
    is_stream: bool,
    requests: Channel,
    grants: Channel,
}

impl Route {
    /// Creates the route of `method` on `topic`, which is empty for a method without topics. Static
    /// names ([`Text::from_static`]) are not copied.
    ///
    /// # Errors
    ///
    /// Returns an error if a name is empty, if not every bus can carry the service's name, or if
    /// the topic is longer than 1,024 bytes.
    pub fn new<T: AsRef<str>>(
        service: impl Into<Text>,
        method: impl Into<Text>,
        properties: MethodProperties,
        topic: &[T],
    ) -> Result<Self, ConfigError> {
        let (service, method) = (service.into(), method.into());
        let requests = Channel::request(service.as_str(), method.as_str(), topic, properties.queue());
        Self::on_channel(service, method, properties, topic, false, requests)
    }

    /// Creates the route of a method whose calls open streams.
    ///
    /// # Errors
    ///
    /// The errors of [`new`](Self::new).
    pub fn stream<T: AsRef<str>>(
        service: impl Into<Text>,
        method: impl Into<Text>,
        properties: MethodProperties,
        topic: &[T],
    ) -> Result<Self, ConfigError> {
        let (service, method) = (service.into(), method.into());
        let requests = Channel::stream_to_server(service.as_str(), method.as_str(), topic);
        Self::on_channel(service, method, properties, topic, true, requests)
    }

    fn on_channel<T: AsRef<str>>(
        service: Text,
        method: Text,
        properties: MethodProperties,
        topic: &[T],
        is_stream: bool,
        requests: Channel,
    ) -> Result<Self, ConfigError> {
        check_service(service.as_str())?;
        if method.is_empty() {
            return Err(ConfigError::NoMethod);
        }
        if topic.iter().map(|part| part.as_ref().len()).sum::<usize>() > TOPIC_BYTES {
            let topic = topic.iter().map(AsRef::as_ref).collect::<Vec<_>>().join("|");
            let (method, limit) = (method.to_string(), TOPIC_BYTES);
            return Err(ConfigError::Topic { method, topic, limit });
        }
        Ok(Self(Arc::new(Inner {
            grants: Channel::claim_response(service.as_str(), method.as_str(), topic),
            service,
            method,
            topic: topic.iter().map(|part| Text::from(part.as_ref())).collect(),
            properties,
            is_stream,
            requests,
        })))
    }

    /// Returns the service, by its name on the wire.
    pub fn service(&self) -> &Text {
        &self.0.service
    }

    /// Returns the method, by its name on the wire.
    pub fn method(&self) -> &Text {
        &self.0.method
    }

    /// Returns the parts of the topic.
    pub fn topic(&self) -> &[Text] {
        &self.0.topic
    }

    /// Returns how calls are routed.
    pub fn properties(&self) -> MethodProperties {
        self.0.properties
    }

    /// Returns `true` if a call opens a stream.
    pub fn is_stream(&self) -> bool {
        self.0.is_stream
    }

    /// Returns `true` if the bus hands each request to one server. A stream's frames go to every
    /// server, whatever the routing.
    pub fn is_queue(&self) -> bool {
        self.0.properties.queue() && !self.0.is_stream
    }

    /// Returns `true` if a server may run a call without a grant: on a queue, only one server has
    /// seen it (PROTOCOL section 5).
    pub(crate) fn may_skip_claim(&self) -> bool {
        self.is_queue() && self.0.properties.require_claim
    }

    /// Returns the channel of requests, or of the frames that clients send on their streams.
    pub fn requests(&self) -> &Channel {
        &self.0.requests
    }

    /// Returns the channel of grants.
    pub fn grants(&self) -> &Channel {
        &self.0.grants
    }
}

impl PartialEq for Route {
    /// Compares the service, method, topic, properties and kind.
    fn eq(&self, other: &Self) -> bool {
        let parts = |route: &Self| (route.properties(), route.is_stream());
        (self.service(), self.method(), self.topic()) == (other.service(), other.method(), other.topic())
            && parts(self) == parts(other)
    }
}

impl Eq for Route {}

impl fmt::Debug for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Route({self})")
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.service(), self.method())?;
        if self.topic().is_empty() { Ok(()) } else { write!(f, "{:?}", self.topic()) }
    }
}

pub(crate) fn check_service(service: &str) -> Result<(), ConfigError> {
    if service.is_empty() {
        return Err(ConfigError::NoService);
    }
    check_id(service, usize::MAX)
        .map_err(|cause| ConfigError::Service { service: service.to_string(), cause })
}

pub(crate) fn check_own_id(id: &Text, limit: usize) -> Result<(), ConfigError> {
    check_id(id.as_str(), limit).map_err(|cause| ConfigError::Id { id: id.to_string(), cause })
}
