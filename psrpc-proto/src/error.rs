//! Why a frame could not be decoded.

use core::fmt;

/// A frame that could not be decoded: where it went wrong, and how. Always the sender's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}{}: {kind}", Field(*.field))]
pub struct DecodeError {
    /// The message in which it went wrong, by its protobuf name.
    pub message: &'static str,
    /// The number of the field that went wrong, 0 if it was none in particular.
    pub field: u32,
    /// What was wrong with it.
    pub kind: DecodeErrorKind,
}

/// What was wrong with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeErrorKind {
    /// It ends inside a field.
    #[error("ends inside a field")]
    Truncated,
    /// A varint is longer than ten bytes or does not fit into 64 bits.
    #[error("varint out of range")]
    Varint,
    /// A field number of 0 or above the protobuf maximum, or a wire type that protobuf does not
    /// have.
    #[error("not a protobuf tag")]
    Tag,
    /// A known field comes with a wire type that is not its own.
    #[error("wrong wire type")]
    WireType,
    /// A string is not UTF-8.
    #[error("not UTF-8")]
    NotUtf8,
    /// A group that does not end, ends twice, or nests too deeply.
    #[error("unbalanced group")]
    Group,
    /// More than a limit allows ([`FrameLimits`](crate::FrameLimits)).
    #[error("more than the limit of {limit} {unit}")]
    OverLimit {
        /// The limit.
        limit: usize,
        /// What it counts.
        unit: &'static str,
    },
    /// A value that is said to be compressed with gzip, and is not, or is cut short or damaged.
    #[error("damaged gzip")]
    Gzip,
    /// A value that is compressed in a way that is not known here.
    #[error("unknown compression {number}")]
    Compression {
        /// What the envelope says.
        number: i32,
    },
}

struct Field(u32);

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => Ok(()),
            number => write!(f, " field {number}"),
        }
    }
}
