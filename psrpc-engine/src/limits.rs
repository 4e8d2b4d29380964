//! Limits on what an engine holds in memory.

use psrpc_proto::FrameLimits;

use crate::config::ConfigError;

/// Limits of a [`Client`](crate::Client).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientLimits {
    /// Limits of one frame. A frame that exceeds them is dropped; a call that exceeds them is
    /// refused.
    pub frame: FrameLimits,
    /// Calls in flight, including openings of streams. The same limit applies separately to multi
    /// calls. Further calls are refused
    /// ([`CallError::TooManyCalls`](crate::CallError::TooManyCalls)). Default: 131,072.
    pub calls: usize,
    /// Bids held for one call. Further bids are dropped
    /// ([`Reason::BidsFull`](crate::Reason::BidsFull)). Default: 4,096.
    pub bids_per_call: usize,
    /// Responses to one multi call. Further responses are dropped
    /// ([`Reason::ResponsesFull`](crate::Reason::ResponsesFull)). Default: 4,096.
    pub responses_per_call: usize,
    /// Updates of one subscription that its consumer has not taken. Further updates are dropped
    /// ([`Reason::SlowConsumer`](crate::Reason::SlowConsumer)), and each is reported as a gap.
    /// At least 1. Default: 8,192.
    pub updates_per_subscription: usize,
    /// Limits of the streams.
    pub streams: StreamLimits,
}

impl ClientLimits {
    /// The defaults.
    pub const DEFAULT: ClientLimits = ClientLimits {
        frame: FrameLimits::DEFAULT,
        calls: 131_072,
        bids_per_call: 4_096,
        responses_per_call: 4_096,
        updates_per_subscription: 8_192,
        streams: StreamLimits::DEFAULT,
    };
}

impl Default for ClientLimits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Limits of a [`Server`](crate::Server).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerLimits {
    /// Limits of one frame. A frame that exceeds them is dropped.
    pub frame: FrameLimits,
    /// Requests in flight: those the server decides on, has bid for, or runs, and those whose
    /// response waits for the bus. Further requests are dropped
    /// ([`Reason::RequestsFull`](crate::Reason::RequestsFull)). On a queue-routed or single-server
    /// method they are answered with `resource_exhausted`, because no other server will. Default:
    /// 65,536.
    pub requests: usize,
    /// Metadata and payloads of the requests in flight together, in bytes. Further requests are
    /// refused like those beyond [`requests`](Self::requests). Default: 256 MiB.
    pub request_bytes: usize,
    /// Requests remembered until they expire, so that none runs twice; a few dozen bytes each.
    /// Further requests are refused in the same way
    /// ([`Reason::DedupFull`](crate::Reason::DedupFull)); none is forgotten early. Default:
    /// 1,048,576.
    pub remembered: usize,
    /// Clients whose channel names are cached. For other clients the names are rebuilt when needed.
    /// Default: 1,024.
    pub cached_clients: usize,
    /// Updates that wait for the bus. Further updates are refused
    /// ([`UpdateError::TooMany`](crate::UpdateError::TooMany)). Default: 65,536.
    pub updates: usize,
    /// Limits of the streams.
    pub streams: StreamLimits,
}

impl ServerLimits {
    /// The defaults.
    pub const DEFAULT: ServerLimits = ServerLimits {
        frame: FrameLimits::DEFAULT,
        requests: 65_536,
        request_bytes: 256 * 1024 * 1024,
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

/// Limits of the streams of a [`Client`](crate::Client) or [`Server`](crate::Server).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamLimits {
    /// Streams that are open or being opened. A client refuses to open more; a server does not bid
    /// for more ([`Reason::StreamsFull`](crate::Reason::StreamsFull)). Default: 65,536.
    pub streams: usize,
    /// Messages of one stream that its consumer has not taken.
    /// [`SlowConsumer`](crate::SlowConsumer) decides about further messages. At least 1. Default:
    /// 1,024.
    pub unread_per_stream: usize,
    /// Messages of one stream that are held back until its consumer has room
    /// ([`SlowConsumer::HoldBack`](crate::SlowConsumer::HoldBack)). Further messages are discarded.
    /// Default: 1,024.
    pub held_per_stream: usize,
    /// The bytes of the messages of one stream that are held back. Default: 16 MiB.
    pub held_bytes_per_stream: usize,
    /// Messages of all streams that are held back. Default: 65,536.
    pub held: usize,
    /// The bytes of the messages of all streams that are held back. Default: 256 MiB.
    pub held_bytes: usize,
    /// Unacknowledged messages sent on one stream, at most. The window of the stream
    /// ([`send`](crate::StreamCommands::send)) never exceeds this. Further sends wait. At least 1.
    /// Default: 1,024.
    pub sends_per_stream: usize,
    /// Sends on one stream that wait for a place in its window. Further sends are refused
    /// ([`SendError::TooMany`](crate::SendError::TooMany)). Default: 8,192.
    pub waiting_per_stream: usize,
    /// Messages of all streams remembered until they expire, so that none is delivered twice; a few
    /// dozen bytes each. Further messages are dropped
    /// ([`Reason::MessagesFull`](crate::Reason::MessagesFull)). Default: 1,048,576.
    pub remembered: usize,
}

impl StreamLimits {
    /// The defaults.
    pub const DEFAULT: StreamLimits = StreamLimits {
        streams: 65_536,
        unread_per_stream: 1_024,
        held_per_stream: 1_024,
        held_bytes_per_stream: 16 << 20,
        held: 65_536,
        held_bytes: 256 << 20,
        sends_per_stream: 1_024,
        waiting_per_stream: 8_192,
        remembered: 1_048_576,
    };
}

impl StreamLimits {
    /// Checks the limits that must be at least 1, because no message would pass otherwise.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        ConfigError::check_limit("unread_per_stream", self.unread_per_stream)?;
        ConfigError::check_limit("sends_per_stream", self.sends_per_stream)
    }
}

impl Default for StreamLimits {
    fn default() -> Self {
        Self::DEFAULT
    }
}
