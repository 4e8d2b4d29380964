//! The service for updates that are routed by queue. On NATS they need a service of their own.

use psrpc::{Method, MethodProperties, Routing, Service};

const BY_QUEUE: MethodProperties = MethodProperties { routing: Routing::Queue, require_claim: false };

/// A service whose updates each go to one subscriber.
pub(super) static GOSSIP: Service = Service {
    name: "Gossip",
    methods: &[
        Method::subscription(0, "Rumours", BY_QUEUE).messages("simulation.v1.Ask", "simulation.v1.Reply")
    ],
};
