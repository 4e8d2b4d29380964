//! Compression of published values.

/// Settings for the compression of published values (PROTOCOL section 1).
///
/// Reading needs no option: the envelope says whether its value is compressed
/// ([`Frame::decode`](crate::Frame::decode)). Go peers read compressed values from v0.7.6 on; older
/// ones drop such frames. Compression costs the publisher time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compression {
    /// The smallest value to compress, in bytes. A value that compression does not make smaller is
    /// sent uncompressed. Default: 1,024.
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
