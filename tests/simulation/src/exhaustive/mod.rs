//! Every schedule of a small scenario: one client, two servers, one call.
//!
//! A schedule is an order of all that is on its way and of all timers. In any state a frame on its
//! way may come, in any order, also against that of its channel; a handler may be done, a caller
//! may cancel; or the time of the earliest timer may come although other things are on their way,
//! which then come late. Of timers that are due at the same moment any may be the first. Faults are
//! part of the schedule: a frame is lost as it is published; a frame comes and will come once more,
//! on a queue perhaps to the other server; a server crashes, and all that is on its way to it is
//! gone. Bus and users are otherwise prompt: a frame is published at once, and a server bids as
//! soon as a request comes in.
//!
//! No schedule is left out, and none is gone through twice, which would take years:
//!
//! * An engine is deterministic, so what a node does follows from what came to it and when: its
//!   history. It is run once for each history, from the beginning (`histories`).
//! * What can still happen, and what the oracle will say to it, follows from a `WorldState`: the
//!   history of each node, what is on its way, the time, the faults so far, and what the oracle has
//!   seen. Schedules that lead to equal states go on alike: from there they are gone through once,
//!   and counted by the number of ways that lead there (`search`). A state says how many steps lead
//!   to it but for frames that are ignored, so that it is enough to compare states that are equally
//!   many steps from the beginning.
//! * A frame that an engine counts as dropped, and a command that it ignores, does not become part
//!   of a history, if the engine puts nothing out and holds and waits for what it did before. This
//!   trusts that it is then as it was before; a test counts schedules without that trust.
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
