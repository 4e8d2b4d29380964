//! The driver: joins an engine with a bus and a runtime. One for each client and each server.

mod core;
mod inbound;

pub(crate) use self::core::{Driver, DriverState, Role};

/// From this size on, in bytes, a message is decoded in a task of its own: to decode 16 MiB in the
/// background task would hold up the bids, acks and timers of all others.
pub(crate) const LARGE: usize = 64 * 1024;

/// The default room of a subscription, in frames.
pub(crate) const CHANNEL_SIZE: usize = 8192;
