//! Shows that any .proto is refused with a place or compiles: real files, which packages of the registries have, and nasty
//! ones, which are made up.

#![forbid(unsafe_code)]

pub mod batch;
pub mod corpus;
pub mod service;
pub mod sources;

/// What goes wrong beside a .proto: a file cannot be read, or a program cannot be run.
pub type Error = Box<dyn std::error::Error>;
