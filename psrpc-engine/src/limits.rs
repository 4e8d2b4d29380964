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
    /// Answers to one multi call. Default 4,096. One more is dropped
    /// ([`Reason::ResponsesFull`](crate::Reason::ResponsesFull)).
    pub answers_per_call: usize,
    /// Updates of one subscription that wait to be taken. Default 8,192. One more is lost
    /// ([`Reason::SlowConsumer`](crate::Reason::SlowConsumer)), with a gap in its place.
    pub updates_per_subscription: usize,
    /// What its streams hold.
    pub streams: StreamLimits,
}

impl ClientLimits {
    /// The defaults.
    pub const DEFAULT: ClientLimits = ClientLimits {
        frame: FrameLimits::DEFAULT,
        calls: 131_072,
        bids_per_call: 4_096,
        answers_per_call: 4_096,
        updates_per_subscription: 8_192,
        streams: StreamLimits::DEFAULT,
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
    /// ([`Reason::RequestsFull`](crate::Reason::RequestsFull)), and answered `resource_exhausted`
    /// if the method is queue-routed, since no other server saw it.
    pub requests: usize,
    /// Requests remembered until they expire, so that none runs twice; a few dozen bytes each.
    /// Default 1,048,576. One more is refused in the same way
    /// ([`Reason::DedupFull`](crate::Reason::DedupFull)); none is forgotten early.
    pub remembered: usize,
    /// Clients whose channel names are kept at hand. Default 1,024. Beyond it names are made again
    /// when needed.
    pub cached_clients: usize,
    /// Updates that wait for the bus to take them. Default 65,536. One more is refused
    /// ([`UpdateError::TooMany`](crate::UpdateError::TooMany)).
    pub updates: usize,
    /// What its streams hold.
    pub streams: StreamLimits,
}

impl ServerLimits {
    /// The defaults.
    pub const DEFAULT: ServerLimits = ServerLimits {
        frame: FrameLimits::DEFAULT,
        requests: 65_536,
        remembered: 1_048_576,
        cached_clients: 1_024,
        updates: 65_536,
        streams: StreamLimits::DEFAULT,
    };
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// What the streams of a [`Client`](crate::Client) or [`Server`](crate::Server) hold at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamLimits {
    /// Streams that are open or being opened. Default 65,536. A client refuses to open one more; a
    /// server does not bid for it ([`Reason::StreamsFull`](crate::Reason::StreamsFull)).
    pub streams: usize,
    /// Messages of one stream that wait to be taken. Default 1,024. What happens to one more is up
    /// to [`SlowConsumer`](crate::SlowConsumer).
    pub unread_per_stream: usize,
    /// Messages of one stream that were sent and not acknowledged. Default 1,024. One more is
    /// refused ([`SendError::TooMany`](crate::SendError::TooMany)).
    pub sends_per_stream: usize,
    /// Messages of all streams remembered until they expire, so that none is delivered twice; a few
    /// dozen bytes each. Default 1,048,576. One more is dropped
    /// ([`Reason::MessagesFull`](crate::Reason::MessagesFull)).
    pub remembered: usize,
}

impl StreamLimits {
    /// The defaults.
    pub const DEFAULT: StreamLimits = StreamLimits {
        streams: 65_536,
        unread_per_stream: 1_024,
        sends_per_stream: 1_024,
        remembered: 1_048_576,
    };
}

impl Default for StreamLimits {
    fn default() -> Self {
        Self::DEFAULT
    }
}
