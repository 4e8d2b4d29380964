//! Frames to publish, from the queue to the `PUBLISH` command.

use bytes::Bytes;
use psrpc::BusError;
use psrpc::bus::{Offer, Receipt, assert_unlocked};
use psrpc::proto::{Channel, Frame};
use redis::Cmd;

use crate::options::RedisOptions;

/// The approximate memory that a frame takes in addition to its bytes.
pub(crate) const OVERHEAD: usize = 256;

/// The size in bytes from which a frame is encoded in its own task.
const LARGE: usize = 64 * 1024;

/// A frame to publish.
pub(crate) struct Publish {
    pub(crate) channel: Channel,
    pub(crate) content: Content,
    pub(crate) receipt: Receipt,
    /// The estimated number of bytes that count against the budget.
    pub(crate) size: usize,
}

/// The content of a frame to publish.
pub(crate) enum Content {
    Frame(Frame),
    Encoded(Cmd),
    /// The frame could not be encoded.
    Failed(BusError),
    /// The frame is being encoded, or was sent.
    Taken,
}

impl Publish {
    pub(crate) fn new(offer: Offer<'_>) -> Self {
        let size = offer.frame().value_len() + OVERHEAD;
        let (channel, frame, receipt) = offer.take_for_later();
        Self { channel, content: Content::Frame(frame), receipt, size }
    }

    /// Takes the content, to send it or to encode it elsewhere.
    pub(crate) fn take(&mut self) -> Content {
        std::mem::replace(&mut self.content, Content::Taken)
    }

    /// Returns `true` if encoding the frame here would delay the frames of other channels.
    pub(crate) fn is_large(&self) -> bool {
        let is_to_encode = matches!(&self.content, Content::Frame(frame) if !matches!(frame, Frame::Raw(_)));
        is_to_encode && self.size >= LARGE + OVERHEAD
    }
}

/// Returns the command that publishes a frame.
pub(crate) fn encode(channel: &Channel, frame: &Frame, options: &RedisOptions) -> Cmd {
    assert_unlocked("a frame is encoded");
    let bytes: Bytes = frame.encode_with(channel.local(), options.compression);
    let mut command = redis::cmd("PUBLISH");
    command.arg(&*options.prefixed(channel.legacy())).arg(&bytes[..]);
    command
}
