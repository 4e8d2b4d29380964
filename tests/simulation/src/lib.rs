//! A deterministic simulator of the engine, the driver and whole services. Clients and servers run
//! on virtual clocks, on a bus with seeded faults. A model checks the invariants after every step.
//!
//! One seed decides everything, so a seed that fails once fails every time:
//!
//! ```
//! use psrpc_simulation::simulate;
//!
//! let report = simulate(7, None);
//! assert_eq!(report.violation, None);
//! assert_eq!(report, simulate(7, None));
//! ```
//!
//! ```text
//! cargo run --release -p psrpc-simulation -- run --seeds 20000
//! cargo run --release -p psrpc-simulation -- replay 7 --shrink --chart 7.svg
//! cargo run --release -p psrpc-simulation -- exhaustive
//! ```
//!
//! `run` prints a hash of all traces, which is the same in debug and release builds.
//!
//! `cargo run -p psrpc-planted` builds the simulator in a copy of the tree that contains the bugs
//! of `tests/simulation/defects.txt`. Only there, under the cfg `psrpc_planted`, the simulator has
//! the command `planted`. It plants one bug after the other in the engine or the driver and prints
//! the invariant that each violates (`seeds::planted_defects`).
//!
//! The driver and services are simulated too: a [`World`] runs real clients and servers, with their
//! generated code, handlers and interceptors, in virtual time under the same faults.
//! [`simulate_driver`] runs one seed of that.
//!
//! Seeds are samples. For small scenarios, [`mod@exhaustive`] runs every schedule.
//!
//! # Where things are
//!
//! - `engines` runs engines: a seed is a `Simulation`, whose nodes live in an `EngineWorld`. An
//!   `EngineNode` drives an engine on a skewed clock for its user, a `ClientUser` or a
//!   `ServerUser`.
//! - `services` runs real clients and servers in a [`World`].
//! - [`mod@exhaustive`] runs engines through every schedule of a
//!   [`Scenario`](exhaustive::scenario::Scenario).
//! - [`judge`] has the invariants. Its [`Model`](judge::model::Model) checks the facts of a run of
//!   engines and knows nothing else about the run. Its [`Ledger`](judge::services::ledger::Ledger)
//!   records and checks what the users of services see, also on real servers (psrpc-faults).
//! - [`seeds`] runs one seed or many.
//! - The files beside these folders are shared. The `Scene` has the virtual time, the event queue
//!   and the trace. The `Net` carries frames between nodes and injects faults, with the help of the
//!   `frame_forger`.

#![forbid(unsafe_code)]

mod clock;
mod fault;
mod frame_forger;
mod frame_text;
mod net;
mod node_id;
mod report;
mod rng;
mod scene;
mod sequence_chart;
mod trace;

mod engines;
pub mod exhaustive;
pub mod judge;
pub mod seeds;
mod services;

pub use engines::shrink::{Shrunk, shrink};
pub use engines::simulation::{simulate, simulate_steadily};
pub use fault::{Fault, FaultCounts};
pub use node_id::NodeId;
pub use report::{Report, Summary, same_trace};
pub use seeds::kept_seeds::{Kept, kept};
pub use seeds::many_seeds::run_seeds;
pub use seeds::one_seed::{check_seed, simulate_seed};
pub use sequence_chart::sequence_chart;
pub use services::check_seeds::check_seeds;
pub use services::driver_run::simulate_driver;
pub use services::handlers;
pub use services::hats;
pub use services::node::{Job, Node, NodeBus, NodeRuntime};
pub use services::world::{Stuck, World};
pub use trace::Line;
