//! Every schedule of a small scenario: one client, two servers, one call.
//!
//! A schedule is an order of all pending inputs and timers. In any state, one of these happens: a
//! pending frame arrives, in any order, even relative to others of its channel; a handler finishes;
//! the caller cancels; or the earliest timer fires although inputs are pending, which then arrive
//! late. If several timers are due at the same moment, any may fire first.
//!
//! Faults are part of the schedule: a frame is lost when it is published; a frame arrives twice, on
//! a queue perhaps at both servers; or a server crashes, and everything pending for it is lost.
//! Otherwise the bus and the users act at once: a frame is published without delay, and a server
//! bids as soon as it receives a request.
//!
//! The search covers every schedule, but visits equal parts only once; to visit every schedule
//! separately would take years:
//!
//! * An engine is deterministic, so the behaviour of a node follows from its history: its inputs
//!   and their times. The engine runs once for each history, from the beginning (`histories`).
//! * The rest of a schedule, and the oracle's verdict on it, follow from a `WorldState`: the
//!   history of each node, the pending inputs, the time, the faults so far, and the oracle's state.
//!   Schedules that lead to equal states continue alike. The search continues from such a state
//!   once, and counts the number of ways that lead there (`search`). A state implies the number of
//!   steps that lead to it, except for ignored frames, so only states at equal distance from the
//!   start are compared.
//! * A frame that an engine counts as dropped, or a command that it ignores, does not extend a
//!   history if the engine has no outputs and its tables and timers do not change. This assumes
//!   that the engine's state does not change either; a test counts schedules without that
//!   assumption.
//!
//! ```
//! use psrpc_simulation::exhaustive::scenario::{Kind, Scenario};
//! use psrpc_simulation::exhaustive::search::exhaustive;
//!
//! let outcome = exhaustive(&Scenario::new(Kind::Queue, 1));
//! assert_eq!((outcome.total(), outcome.failed), (25_181, 0));
//! ```

mod driven_node;
mod histories;
mod oracle;
pub mod outcome;
pub mod scenario;
mod scripted_users;
pub mod search;
mod step;
mod step_text;
mod world_state;
