//! The methods of the service that all nodes of a run use, at least one of each kind.

use psrpc_engine::Route;
use psrpc_engine::proto::{MethodProperties, Routing};

pub(crate) const SERVICE: &str = "Hats";

/// The message type of all updates.
pub(crate) const NEWS: &str = "test.News";

/// The methods of the service.
pub(crate) struct Methods {
    /// The methods that one server runs.
    pub(crate) calls: Vec<Route>,
    pub(crate) multi: Route,
    pub(crate) streams: Vec<Route>,
    /// The subscriptions.
    pub(crate) updates: Vec<Route>,
}

impl Methods {
    pub(crate) fn new() -> Self {
        let properties = |routing, require_claim| MethodProperties { routing, require_claim };
        let route = |method, routing, require_claim| {
            Route::new::<&str>(SERVICE, method, properties(routing, require_claim), &[])
                .expect("the names are valid")
        };
        let stream = |method, routing, require_claim| {
            Route::stream::<&str>(SERVICE, method, properties(routing, require_claim), &[])
                .expect("the names are valid")
        };
        Self {
            calls: vec![
                route("Fit", Routing::Queue, true),
                route("Pick", Routing::Affinity, true),
                route("OwnerFit", Routing::Queue, false),
            ],
            multi: route("Count", Routing::Multi, false),
            streams: vec![
                stream("Chat", Routing::Affinity, true),
                stream("Mend", Routing::Queue, true),
                stream("OwnerChat", Routing::Queue, false),
            ],
            updates: vec![route("News", Routing::Multi, false), route("Orders", Routing::Queue, true)],
        }
    }

    /// Returns the methods that a server registers. Only the `owner` registers single-server
    /// methods.
    pub(crate) fn served(&self, owner: bool) -> Vec<Route> {
        let routes = self.calls.iter().chain([&self.multi]).chain(&self.streams);
        let may = |route: &&Route| owner || route.properties().require_claim || route.properties().multi();
        routes.filter(may).cloned().collect()
    }
}
