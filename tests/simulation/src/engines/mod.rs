//! Engines, driven in virtual time over the simulated network: what a seed plans, the nodes that
//! drive the engines, and the users above them.

mod client_user;
mod engine_happening;
mod engine_node;
mod engine_plan;
mod engine_world;
mod methods;
mod server_user;
pub(crate) mod shrink;
pub(crate) mod simulation;
mod stream_user;
mod user_act;
mod variation;
