//! The simulator against itself: seeds pass and repeat, and no check is one that cannot fail.

mod judge;
mod seeds;
