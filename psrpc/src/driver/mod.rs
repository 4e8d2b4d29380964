//! The driver: joins an engine with a bus and a runtime. One for each client and each server.

mod core;
mod inbound;
mod mailbox;

pub(crate) use self::core::{Driver, Role, State};
pub(crate) use self::mailbox::Mailbox;

/// From this size on, in bytes, a message is decoded in a task of its own: to decode 16 MiB in the background task would hold up
/// the bids, acks and timers of all others.
pub(crate) const LARGE: usize = 64 * 1024;
