//! A deterministic simulator of the engine, of the driver and of services: clients and servers on virtual clocks, a bus with seeded faults, and a
//! model that checks the invariants after every step.
//!
//! One seed decides everything, so that a seed that fails fails again:
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
//! cargo run --release -p psrpc-simulation -- planted
//! cargo run --release -p psrpc-simulation -- exhaustive
//! ```
//!
//! `run` prints a hash of all traces, which is the same in debug and release. `planted` plants one bug after the other
//! in the engine or the driver, and tells which invariant each violates ([`planted`]).
//!
//! The driver is simulated too, and so is any service: a [`World`] runs real clients and servers, with their generated code, handlers
//! and interceptors, in virtual time under the same faults. [`simulate_driver`] is a seed of that.
//!
//! Seeds are samples. Of scenes that are small enough [`mod@exhaustive`] looks at every schedule, in a world of its own.
//!
//! What takes part in a seed: the `Simulation` has nodes in a `World`. A `Node` drives an engine on a skewed clock for
//! its user, a `Caller` or a `Host`; the `Net` carries frames between them, and spoils some; the `Stage` is the virtual
//! time, the agenda and the trace. The judge ([`check::Model`]) hears the facts and knows nothing else. A `World` of
//! services has the same stage and net, and a driver's seed a judge of its own, who hears what users see.

#![forbid(unsafe_code)]

mod caller;
mod chart;
pub mod check;
mod clock;
mod driver;
pub mod exhaustive;
mod fault;
mod forge;
mod happening;
mod host;
mod kept;
mod many;
mod methods;
mod names;
mod net;
mod node;
mod node_id;
mod payload;
mod plan;
pub mod planted;
mod report;
mod rng;
mod seed;
mod service;
mod show;
mod shrink;
mod simulation;
mod stage;
mod talk;
mod trace;
mod variation;
mod world;

pub use chart::chart;
pub use driver::simulate_driver;
pub use fault::{Fault, FaultCounts};
pub use kept::{Kept, kept};
pub use many::run_seeds;
pub use node_id::NodeId;
pub use report::{Report, Summary};
pub use seed::{check_seed, simulate_seed};
pub use service::{Job, Node, NodeBus, NodeRuntime, Stuck, World, check_seeds};
pub use shrink::{Shrunk, shrink};
pub use simulation::{simulate, simulate_steadily};
pub use trace::Line;
