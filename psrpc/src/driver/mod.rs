//! The driver, which connects an engine to a bus and a runtime. Each client and each server has
//! one.

mod core;
mod inbound;

pub(crate) use self::core::{Driver, DriverState, Role};

/// The minimum size, in bytes, of a message that is decoded in a task of its own. Decoding 16 MiB
/// in the background task would delay the bids, acks and timers of all other calls.
pub(crate) const LARGE: usize = 64 * 1024;

/// The default capacity of a subscription, in frames.
pub(crate) const QUEUED_FRAMES: usize = 8192;
