//! Limits of frames, with their defaults.

/// Limits of one frame. A frame that exceeds a limit is not decoded.
///
/// Each limit is checked before anything is allocated for the data that it bounds. A peer therefore
/// cannot make a reader hold more than a small multiple of what it sent or, for a compressed value,
/// more than `frame_bytes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameLimits {
    /// Length in bytes of a whole frame, and of a decompressed value. Default: 16 MiB.
    pub frame_bytes: usize,
    /// Length in bytes of an id (request, client, server, stream, node). Default: 256.
    pub id_bytes: usize,
    /// Entries of metadata. Default: 128.
    pub metadata_entries: usize,
    /// Names and values of metadata together, in bytes. Default: 64 KiB.
    pub metadata_bytes: usize,
    /// Details of one error. Default: 32.
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
