//! The driver: joins an engine with a bus and a runtime. One for each client and each server.

mod core;
mod inbound;

pub(crate) use self::core::{Driver, Role};
