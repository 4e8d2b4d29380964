//! The same tests as on tokio, where the bus has a thread of its own.

#![allow(clippy::disallowed_methods, reason = "deadlines of real servers are kept by real clocks")]

#[path = "it/bus.rs"]
mod bus;
#[path = "it/connect.rs"]
mod connect;
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

/// The runtime of the buses.
fn runtime() -> psrpc_smol::SmolRuntime {
    psrpc_smol::SmolRuntime
}
