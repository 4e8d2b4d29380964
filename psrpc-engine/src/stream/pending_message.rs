//! A received message of a stream.

use psrpc_proto::Text;

use crate::core::handle::StreamHandle;

/// A received message that waits for [`accept`](crate::StreamCommands::accept) or
/// [`reject`](crate::StreamCommands::reject).
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "the message must be accepted or rejected"]
pub struct PendingMessage {
    pub(crate) stream: StreamHandle,
    pub(crate) request_id: Text,
    pub(crate) sent_at: i64,
    pub(crate) expiry: i64,
}

impl PendingMessage {
    /// Returns the stream of the message.
    pub fn stream(&self) -> StreamHandle {
        self.stream
    }
}
