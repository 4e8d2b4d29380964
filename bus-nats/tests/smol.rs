//! The tests of `tests/it` on smol, where the bus has its own thread.

#![allow(clippy::disallowed_methods, reason = "real servers need real time")]

#[path = "it/bus.rs"]
mod bus;
#[path = "it/connect.rs"]
mod connect;
#[path = "it/credentials.rs"]
mod credentials;
#[path = "it/faults.rs"]
mod faults;
#[path = "it/idle.rs"]
mod idle;
#[path = "it/many.rs"]
mod many;
#[path = "it/refusals.rs"]
mod refusals;
#[path = "it/support.rs"]
mod support;
#[cfg(feature = "tls")]
#[path = "it/tls.rs"]
mod tls;

/// The runtime of the buses.
fn runtime() -> psrpc_smol::SmolRuntime {
    psrpc_smol::SmolRuntime
}
