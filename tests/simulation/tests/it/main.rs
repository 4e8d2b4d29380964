//! The simulator against itself: seeds pass and repeat, and no check is one that cannot fail.

mod driver;
mod exhaustive;
mod judge;
mod seeds;
mod service;
