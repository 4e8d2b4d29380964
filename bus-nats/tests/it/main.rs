//! The bus on real NATS servers, which the tests start and stop: on the tokio of the tests, with
//! one thread and with several. `tests/smol.rs` has the same tests on a runtime that is not tokio.

#![allow(clippy::disallowed_methods, reason = "deadlines of real servers are kept by real clocks")]

mod bus;
mod connect;
mod conversations;
mod faults;
mod idle;
mod many;
mod refusals;
mod runtime_ends;
mod support;

/// The runtime of the buses, which the tests themselves run on.
fn runtime() -> psrpc_tokio::TokioRuntime {
    psrpc_tokio::TokioRuntime::current().expect("the test runs on tokio")
}
