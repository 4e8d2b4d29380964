//! Services: real clients and servers with their generated code, in virtual time over the simulated
//! network. A test of any service runs in a `World`; `driver_run` is the simulator's own test,
//! which runs one seed.

mod caller;
pub(crate) mod check_seeds;
pub(crate) mod driver_run;
mod executor;
pub mod handlers;
pub mod hats;
mod ledger_context;
pub(crate) mod node;
mod nodes;
mod service_plan;
pub(crate) mod world;
