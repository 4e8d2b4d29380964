//! Checks that every .proto either compiles or is rejected with a place in the file. Tested with
//! real files from package registries and with random ones.

#![forbid(unsafe_code)]

pub mod batch;
pub mod corpus;
pub mod service;
pub mod sources;

use std::env;
use std::path::{Path, PathBuf};

/// The root of the workspace.
const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// Returns the directory for all downloads, generated code and builds: `protos` in the target
/// directory.
pub fn work_directory() -> PathBuf {
    let target = env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    Path::new(ROOT).join(target).join("protos")
}

/// An error that is not about a .proto: a file cannot be read, or a program cannot be run.
pub type Error = Box<dyn std::error::Error>;
