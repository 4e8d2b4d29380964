//! The parts that both engines are built from. No part knows the engine that it belongs to.
//!
//! From the bottom up: `budget`, `time`, `timers`, `handle`, `map`, `bus_error`, `outputs`,
//! `in_flight`, `dedup`, `cache`, `subscriptions`. They depend on nothing else in the crate but
//! `reason`.

pub(crate) mod budget;
pub(crate) mod bus_error;
pub(crate) mod cache;
pub(crate) mod dedup;
pub(crate) mod handle;
pub(crate) mod in_flight;
pub(crate) mod map;
pub(crate) mod outputs;
pub(crate) mod subscriptions;
pub(crate) mod time;
pub(crate) mod timers;
