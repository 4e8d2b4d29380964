//! Limits: what an engine holds at most, the default, and what happens beyond it.

use psrpc_proto::FrameLimits;

/// What a [`Client`](crate::Client) holds at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientLimits {
    /// What a frame may carry. A frame beyond it is dropped; a call beyond it is refused.
    pub frame: FrameLimits,
    /// Calls in flight. Default 131,072. One more is refused
    /// ([`CallError::TooManyCalls`](crate::CallError::TooManyCalls)).
    pub calls: usize,
    /// Bids of different servers held for one call. Default 4,096. One more is dropped
    /// ([`Reason::BidsFull`](crate::Reason::BidsFull)).
    pub bids_per_call: usize,
    /// Responses held for one call until their announcement comes. Default 4. One more is dropped
    /// ([`Reason::ParkedFull`](crate::Reason::ParkedFull)).
    pub parked_per_call: usize,
}

impl ClientLimits {
    /// The defaults.
    pub const DEFAULT: ClientLimits = ClientLimits {
        frame: FrameLimits::DEFAULT,
        calls: 131_072,
        bids_per_call: 4_096,
        parked_per_call: 4,
    };
}

impl Default for ClientLimits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// What a [`Server`](crate::Server) holds at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerLimits {
    /// What a frame may carry. A frame beyond it is dropped.
    pub frame: FrameLimits,
    /// Requests in flight: decided upon, bid for, or running. Default 65,536. One more is dropped
    /// ([`Reason::RequestsFull`](crate::Reason::RequestsFull)), and answered `resource_exhausted` if the method is
    /// queue-routed, since no other server saw it.
    pub requests: usize,
    /// Requests remembered until they expire, so that none runs twice; a few dozen bytes each. Default 1,048,576. One more is
    /// refused in the same way ([`Reason::DedupFull`](crate::Reason::DedupFull)); none is forgotten early.
    pub remembered: usize,
    /// Clients whose channel names are kept at hand. Default 1,024. Beyond it names are made again when needed.
    pub cached_clients: usize,
}

impl ServerLimits {
    /// The defaults.
    pub const DEFAULT: ServerLimits = ServerLimits {
        frame: FrameLimits::DEFAULT,
        requests: 65_536,
        remembered: 1_048_576,
        cached_clients: 1_024,
    };
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self::DEFAULT
    }
}
