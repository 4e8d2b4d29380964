//! The judge of services: records what the users of real clients and servers see, and checks it.
//!
//! The simulator feeds it in virtual time, and psrpc-faults in real time, on real servers.

pub mod ledger;
pub mod run_context;
pub mod stream_messages;
pub mod user_call;
