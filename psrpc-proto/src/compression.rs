//! Whether what is published is compressed.

/// Which values are compressed when they are published (PROTOCOL section 1).
///
/// Reading needs no such choice: [`Frame::decode`](crate::Frame::decode) knows a compressed value when it sees one. Go reads
/// them from v0.7.6 on; older peers take such a frame for a broken one. Compressing takes the time of whoever publishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compression {
    /// Values of more bytes than this are compressed, unless they would not become smaller. Default 1,024.
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
