//! Engines, driven in virtual time over the simulated network: the plan of a seed, the nodes that
//! drive engines, and their users.

mod arrivals;
mod client_user;
mod engine_node;
mod engine_plan;
mod engine_run_event;
mod engine_world;
mod methods;
mod server_user;
pub(crate) mod shrink;
pub(crate) mod simulation;
mod stream_user;
mod user_act;
mod variation;
