//! The bus on real NATS servers, which the tests start and stop.

#![allow(clippy::disallowed_methods, reason = "deadlines of real servers are kept by real clocks")]

mod bus;
mod connect;
mod conversations;
mod faults;
mod many;
mod support;
