//! Tests of the bus on real NATS servers, on single-threaded and multi-threaded tokio runtimes.
//! `tests/smol.rs` runs the same tests on smol.

#![allow(clippy::disallowed_methods, reason = "real servers need real time")]

mod bus;
mod cluster;
mod connect;
mod conversations;
mod credentials;
mod faults;
mod hats;
mod idle;
mod large;
mod many;
mod recipes;
mod refusals;
mod runtime_ends;
mod support;
#[cfg(feature = "tls")]
mod tls;

/// Returns the runtime of the buses, which also runs the tests.
fn runtime() -> psrpc_tokio::TokioRuntime {
    psrpc_tokio::TokioRuntime::current().expect("the test runs on tokio")
}
