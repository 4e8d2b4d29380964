//! Whether what is published is compressed.

/// Which values are compressed when they are published (PROTOCOL section 1).
///
/// Reading needs no such choice: the envelope says whether its value is compressed
/// ([`Frame::decode`](crate::Frame::decode)). Go reads compressed values since v0.7.6; older peers
/// drop such a frame. The publisher spends the time to compress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compression {
    /// Values of at least this many bytes are compressed, unless that would not make them smaller.
    /// Default 1,024.
    pub threshold: usize,
}

impl Compression {
    /// The defaults.
    pub const DEFAULT: Compression = Compression { threshold: 1024 };
}

impl Default for Compression {
    fn default() -> Self {
        Self::DEFAULT
    }
}
