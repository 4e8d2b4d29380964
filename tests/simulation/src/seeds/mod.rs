//! Seeds: runs one, runs many, keeps those that failed once, and finds those that catch a planted
//! defect.

pub(crate) mod kept_seeds;
pub(crate) mod many_seeds;
pub(crate) mod one_seed;
pub mod planted_defects;
