//! Events of streams.

use alloc::boxed::Box;

use bytes::Bytes;

use super::pending_message::PendingMessage;
use crate::core::handle::{SendHandle, StreamHandle};
use crate::error::Failure;

/// An event of a stream, on either side (PROTOCOL section 8).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum StreamEvent {
    /// A message arrived and waits for [`accept`](crate::StreamCommands::accept) or
    /// [`reject`](crate::StreamCommands::reject).
    Message {
        /// The message to accept or reject.
        delivery: PendingMessage,
        /// The encoded message.
        payload: Bytes,
    },
    /// A send has ended. Its handle is stale from here on.
    Sent {
        /// The send.
        send: SendHandle,
        /// `Ok` if the other side acknowledged the message. Even after an error, the message may
        /// have arrived.
        outcome: Result<(), Box<Failure>>,
    },
    /// A stream has ended. All its sends have already ended.
    Ended {
        /// The stream. At a client its handle is stale from here on; at a server, once its handler
        /// is done.
        stream: StreamHandle,
        /// Why the stream ended.
        cause: Box<Failure>,
    },
}
