//! Fault tests: a fleet of clients and servers with calls of every kind, streams and subscriptions
//! in flight, on real bus servers that fail.
//!
//! A [`Case`](case::Case) is a [`Fault`](fault::Fault) on a [`SetUp`](setup::SetUp) and a
//! [runtime](runtime::RuntimeName). The judge is the simulator's
//! ([`Ledger`](psrpc_simulation::judge::services::ledger::Ledger)): it checks what the users of the
//! clients and servers see. Further checks, outside of the ledger, concern the
//! [events](bus_log) of outages, [gaps in updates](updates), the time until the service is back,
//! and memory.
//!
//! ```text
//! cargo run -p psrpc-faults -- list
//! cargo run -p psrpc-faults -- run --set-up redis --fault kill
//! cargo run -p psrpc-faults -- run --slice 1/4 --table
//! ```

#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod breakable_bus;
pub mod bus_log;
pub mod case;
pub mod child;
pub mod fault;
pub mod fleet;
mod memory;
mod observed_bus;
mod panics;
pub mod progress;
mod real_run;
pub mod runtime;
pub mod setup;
pub mod stage;
pub mod table;
pub mod tasks;
pub mod updates;
