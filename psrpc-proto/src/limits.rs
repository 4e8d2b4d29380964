//! The limits that a frame must keep to, each with its default.

/// What a frame may carry at most; a frame beyond a limit is not decoded.
///
/// Each limit is checked before anything is allocated for what it bounds, so that a peer cannot
/// make a reader hold more than a small multiple of what it sent; of a compressed value, no more
/// than the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameLimits {
    /// Length of a whole frame in bytes, and of a compressed value once it is decompressed. Default
    /// 16 MiB.
    pub frame_bytes: usize,
    /// Length of an id (request, client, server, stream, node) in bytes. Default 256.
    pub id_bytes: usize,
    /// Entries of metadata. Default 128.
    pub metadata_entries: usize,
    /// Keys and values of metadata together, in bytes. Default 64 KiB.
    pub metadata_bytes: usize,
    /// Details of one error. Default 32.
    pub error_details: usize,
}

impl FrameLimits {
    /// The defaults.
    pub const DEFAULT: FrameLimits = FrameLimits {
        frame_bytes: 16 * 1024 * 1024,
        id_bytes: 256,
        metadata_entries: 128,
        metadata_bytes: 64 * 1024,
        error_details: 32,
    };
}

impl Default for FrameLimits {
    fn default() -> Self {
        Self::DEFAULT
    }
}
