//! The judge: the invariants, the facts of a run of engines, and an independent model that reports
//! the first fact that violates an invariant; and the judge of services.

mod call_history;
pub mod fact;
pub mod model;
mod multi_history;
mod operations;
pub(crate) mod payload;
mod responses;
pub mod selection_rules;
pub mod services;
mod stream_history;
mod update_history;
pub mod violation;
