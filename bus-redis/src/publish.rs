//! Frames to publish, from their place in the queue to the command that the server gets.

use bytes::Bytes;
use psrpc::BusError;
use psrpc::bus::{Offer, Receipt, assert_unlocked};
use psrpc::proto::{Channel, Compression, Frame};
use redis::Cmd;

/// How much more memory a frame takes than its bytes, about.
pub(crate) const OVERHEAD: usize = 256;

/// From how many bytes on a frame is encoded in a task of its own.
const LARGE: usize = 64 * 1024;

/// A frame to publish.
pub(crate) struct Publish {
    pub(crate) channel: Channel,
    pub(crate) content: Content,
    pub(crate) receipt: Receipt,
    /// How much of the budget it takes, by an estimate.
    pub(crate) size: usize,
}

/// What of a frame is to be sent.
pub(crate) enum Content {
    Frame(Frame),
    Encoded(Cmd),
    /// Nothing, since it could not be encoded.
    Failed(BusError),
    /// Nothing: the frame is being encoded, or the server has it.
    Taken,
}

impl Publish {
    pub(crate) fn new(offer: Offer<'_>) -> Self {
        let size = offer.frame().value_len() + OVERHEAD;
        let (channel, frame, receipt) = offer.take_for_later();
        Self { channel, content: Content::Frame(frame), receipt, size }
    }

    /// Takes the content, to be sent or to be encoded elsewhere.
    pub(crate) fn take(&mut self) -> Content {
        std::mem::replace(&mut self.content, Content::Taken)
    }

    /// Returns `true` if encoding it would hold up the frames of other channels.
    pub(crate) fn is_large(&self) -> bool {
        let is_to_encode = matches!(&self.content, Content::Frame(frame) if !matches!(frame, Frame::Raw(_)));
        is_to_encode && self.size >= LARGE + OVERHEAD
    }
}

/// Returns the command that publishes a frame.
pub(crate) fn encode(channel: &Channel, frame: &Frame, compression: Option<Compression>) -> Cmd {
    assert_unlocked("a frame is encoded");
    let bytes: Bytes = frame.encode_with(channel.local(), compression);
    let mut command = redis::cmd("PUBLISH");
    command.arg(channel.legacy()).arg(&bytes[..]);
    command
}
