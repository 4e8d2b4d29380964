//! The method that is called, and the side on which something happens.

use std::fmt;

use psrpc_engine::Route;
use psrpc_engine::proto::Text;

/// The service, method and topic of a call. Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct CallInfo(Route);

impl CallInfo {
    /// Returns the name of the service on the wire.
    pub fn service(&self) -> &str {
        self.0.service().as_str()
    }

    /// Returns the name of the method on the wire.
    pub fn method(&self) -> &str {
        self.0.method().as_str()
    }

    /// Returns the parts of the topic. Empty for a method without topics.
    pub fn topic(&self) -> &[Text] {
        self.0.topic()
    }

    /// Returns `true` for a multi call, to which every server responds.
    pub fn is_multi(&self) -> bool {
        self.0.properties().multi()
    }
}

impl From<Route> for CallInfo {
    fn from(route: Route) -> Self {
        Self(route)
    }
}

impl fmt::Display for CallInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for CallInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CallInfo({self})")
    }
}

/// The side of a call on which something happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// The client.
    Client,
    /// The server.
    Server,
}
