//! Changes to source files, for tests that insert bugs into a copy of the tree.

pub mod change;
