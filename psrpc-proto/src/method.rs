//! Method properties: how calls are routed, from the options of an rpc.

/// How the calls of a method find their server (PROTOCOL section 3, `psrpc.Routing`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Routing {
    /// The bus hands each request to one server.
    #[default]
    Queue,
    /// Every server sees the request and bids for it; the client picks by affinity.
    Affinity,
    /// Every server answers.
    Multi,
}

/// The routing part of a method's options, as written in a .proto.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RoutingOptions {
    /// `type`.
    pub routing: Routing,
    /// The deprecated `multi`, `affinity_func` or `queue`, if one is present; its value does not
    /// matter.
    pub deprecated: Option<Routing>,
    /// `topic_params.single_server`.
    pub single_server: bool,
}

/// The properties of a method that client and servers must agree on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MethodProperties {
    /// How its calls find their server.
    pub routing: Routing,
    /// Whether a server waits for the client's grant before it runs a request.
    pub require_claim: bool,
}

impl MethodProperties {
    /// Derives the properties from a method's options. The deprecated spelling takes precedence
    /// over `type`.
    pub const fn from_options(options: RoutingOptions) -> Self {
        let routing = match options.deprecated {
            Some(routing) => routing,
            None => options.routing,
        };
        Self { routing, require_claim: !matches!(routing, Routing::Multi) && !options.single_server }
    }

    /// Returns `true` if the bus hands each request to one server.
    pub const fn queue(self) -> bool {
        matches!(self.routing, Routing::Queue)
    }

    /// Returns `true` if servers bid with a computed affinity.
    pub const fn affinity(self) -> bool {
        matches!(self.routing, Routing::Affinity)
    }

    /// Returns `true` if every server answers.
    pub const fn multi(self) -> bool {
        matches!(self.routing, Routing::Multi)
    }
}
