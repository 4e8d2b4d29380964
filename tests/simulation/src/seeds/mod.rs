//! Seeds: what runs of one, many of them, those that failed once, and those that catch a planted defect.

pub(crate) mod kept_seeds;
pub(crate) mod many_seeds;
pub(crate) mod one_seed;
pub mod planted_defects;
