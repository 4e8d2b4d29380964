//! Options of clients and servers, each with its default.

use core::time::Duration;

use psrpc_proto::Text;

use crate::limits::{ClientLimits, ServerLimits};

/// Options of a [`Client`](crate::Client).
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// The service that it calls, by its name on the wire.
    pub service: Text,
    /// Its id, which no other client of the service may have; empty to have one drawn. Default: empty.
    pub id: Text,
    /// How long a call may take that does not say so itself. Default 3 s.
    pub timeout: Duration,
    /// How long a call waits for bids. Default 1 s.
    pub affinity_timeout: Duration,
    /// How long a call of an affinity method waits for better bids after the first. Default 200 ms.
    pub short_circuit_timeout: Duration,
    /// How long a close waits for the bus to confirm the end of the subscriptions. Default 3 s.
    pub close_timeout: Duration,
    /// What it holds at most.
    pub limits: ClientLimits,
}

impl ClientConfig {
    /// The defaults for a client of `service`.
    pub fn new(service: impl Into<Text>) -> Self {
        Self {
            service: service.into(),
            id: Text::EMPTY,
            timeout: Duration::from_secs(3),
            affinity_timeout: Duration::from_secs(1),
            short_circuit_timeout: Duration::from_millis(200),
            close_timeout: Duration::from_secs(3),
            limits: ClientLimits::DEFAULT,
        }
    }
}

/// Options of a [`Server`](crate::Server).
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// The service that it serves, by its name on the wire.
    pub service: Text,
    /// Its id, which no other server of the service may have; empty to have one drawn. Default: empty.
    pub id: Text,
    /// How long a drain waits for the bus to confirm that nothing more will come. Default 3 s. What comes later is not
    /// accepted.
    ///
    /// Requests in flight are waited for until they expire, however long that is.
    pub drain_timeout: Duration,
    /// How far the clients' wall clocks may be behind ours before their requests count as expired. Default 0.
    ///
    /// Safe for claimed calls, where the client's grant decides. A request without a claim may run up to this long
    /// after its caller gave up.
    pub skew_allowance: Duration,
    /// How long after it was sent a request may expire at the latest; a later expiry is moved there. Default 1 h.
    ///
    /// A request that claims to be sent further ahead of our wall clock than this is dropped.
    pub horizon: Duration,
    /// What it holds at most.
    pub limits: ServerLimits,
}

impl ServerConfig {
    /// The defaults for a server of `service`.
    pub fn new(service: impl Into<Text>) -> Self {
        Self {
            service: service.into(),
            id: Text::EMPTY,
            drain_timeout: Duration::from_secs(3),
            skew_allowance: Duration::ZERO,
            horizon: Duration::from_secs(3600),
            limits: ServerLimits::DEFAULT,
        }
    }
}
