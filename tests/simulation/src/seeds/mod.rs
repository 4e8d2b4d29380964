//! Seeds: runs one seed or many, lists those that failed once, and searches for those that catch a
//! planted defect (only in the copy of the tree that contains defects).

pub(crate) mod kept_seeds;
pub(crate) mod many_seeds;
pub(crate) mod one_seed;
#[cfg(psrpc_planted)]
pub mod planted_defects;
