//! Tests of the simulator: seeds pass and are deterministic, and every check can fail.

mod driver;
mod exhaustive;
mod judge;
mod seeds;
mod service;
