//! Seeds: runs one, runs many, keeps those that failed once, and finds those that catch a planted
//! defect (only in the copy of the tree that has defects).

pub(crate) mod kept_seeds;
pub(crate) mod many_seeds;
pub(crate) mod one_seed;
#[cfg(psrpc_planted)]
pub mod planted_defects;
