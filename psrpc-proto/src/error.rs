//! Errors of decoding.

use core::fmt;

/// The error of decoding a frame. It is always the sender's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}{}: {kind}", Field(*.field))]
pub struct DecodeError {
    /// The protobuf name of the faulty message.
    pub message: &'static str,
    /// The number of the faulty field; 0 if the fault is in no particular field.
    pub field: u32,
    /// What is wrong.
    pub kind: DecodeErrorKind,
}

/// What is wrong with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeErrorKind {
    /// The message ends inside a field.
    #[error("ends inside a field")]
    Truncated,
    /// A varint does not fit into 64 bits.
    #[error("varint out of range")]
    Varint,
    /// A field number is 0 or above the protobuf maximum, or a wire type is not defined.
    #[error("not a protobuf tag")]
    Tag,
    /// A known field has the wrong wire type.
    #[error("wrong wire type")]
    WireType,
    /// A string is not UTF-8.
    #[error("not UTF-8")]
    NotUtf8,
    /// A group is not closed, is closed twice, or nests too deeply.
    #[error("unbalanced group")]
    Group,
    /// A limit is exceeded ([`FrameLimits`](crate::FrameLimits)).
    #[error("exceeds the limit of {limit} {unit}")]
    OverLimit {
        /// The limit.
        limit: usize,
        /// The unit of the limit.
        unit: &'static str,
    },
    /// The value is declared as gzip, but is truncated, corrupt or not gzip at all.
    #[error("damaged gzip")]
    Gzip,
    /// The value has an unknown compression.
    #[error("unknown compression {number}")]
    Compression {
        /// The compression number in the envelope.
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
