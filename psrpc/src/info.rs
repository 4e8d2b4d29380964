//! What is called, and the side on which something happens.

use std::fmt;

use psrpc_engine::Route;
use psrpc_engine::proto::Text;

/// What a call goes to: its service, method and topic. Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct CallInfo(Route);

impl CallInfo {
    /// The service, by its name on the wire.
    pub fn service(&self) -> &str {
        self.0.service().as_str()
    }

    /// The method, by its name on the wire.
    pub fn method(&self) -> &str {
        self.0.method().as_str()
    }

    /// The parts of the topic; none for a method without topics.
    pub fn topic(&self) -> &[Text] {
        self.0.topic()
    }

    /// Whether every server answers.
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

/// On which side of a call something was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// In the client.
    Client,
    /// In the server.
    Server,
}
