//! What happens to streams.

use alloc::boxed::Box;

use bytes::Bytes;

use super::pending_message::PendingMessage;
use crate::core::handle::{SendHandle, StreamHandle};
use crate::error::Failure;

/// What happens to a stream, on either side (PROTOCOL section 8).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum StreamEvent {
    /// A message came, and waits for [`accept`](crate::StreamCommands::accept) or
    /// [`reject`](crate::StreamCommands::reject).
    Message {
        /// What it is accepted or rejected by.
        delivery: PendingMessage,
        /// The user's message, encoded.
        payload: Bytes,
    },
    /// A send has ended. Its handle is stale from here on.
    Sent {
        /// The send.
        send: SendHandle,
        /// Whether the other side has the message, as far as is known.
        outcome: Result<(), Box<Failure>>,
    },
    /// A stream has ended, and all its sends before it.
    Ended {
        /// The stream. At a client its handle is stale from here on, at a server once its handler
        /// is done.
        stream: StreamHandle,
        /// Why.
        cause: Box<Failure>,
    },
}
