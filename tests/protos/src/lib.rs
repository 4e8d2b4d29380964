//! Shows that any .proto is refused with a place or compiles: real files, which packages of the
//! registries have, and nasty ones, which are made up.

#![forbid(unsafe_code)]

pub mod batch;
pub mod corpus;
pub mod service;
pub mod sources;

use std::env;
use std::path::{Path, PathBuf};

/// The root of the workspace.
const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// Where everything goes that is fetched, generated and built: `protos` in the target directory.
pub fn work_directory() -> PathBuf {
    let target = env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    Path::new(ROOT).join(target).join("protos")
}

/// What goes wrong beside a .proto: a file cannot be read, or a program cannot be run.
pub type Error = Box<dyn std::error::Error>;
