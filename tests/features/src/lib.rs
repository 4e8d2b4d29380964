//! Changes of the text of files, for tests that make bugs in a copy of the tree.

pub mod change;
