//! Errors of code generation.

use std::fmt;
use std::io;

/// The reason that no code was generated.
///
/// Its `Debug` form equals its `Display` form, since a build script that returns an error prints
/// its `Debug` form.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file does not compile as protobuf, or one of its imports was not found.
    #[error("{0}")]
    Proto(String),
    /// A definition in a file cannot become a PSRPC service.
    #[error("{position}: {problem}")]
    Service {
        /// The place of the definition.
        position: Position,
        /// The reason, and usually a fix.
        problem: String,
    },
    /// This process already generated the package, from other files or with other settings, and
    /// that code would be lost.
    #[error(
        "package {package}: code generated from {later} would overwrite the code generated earlier from {earlier}; pass all \
         files of the package to one call, or set a different `out_dir` for each call"
    )]
    Overwritten {
        /// The name of the package.
        package: String,
        /// The files of the earlier call, separated by commas.
        earlier: String,
        /// The files of this call, separated by commas.
        later: String,
    },
    /// The protobuf compiler or prost panicked.
    #[error(
        "{files}: code generation panicked: {panic}; unless an attribute or a path passed to `config.prost()` is malformed, \
         this is a bug in psrpc-build: please report it with the file"
    )]
    Panic {
        /// The files of the call, separated by commas.
        files: String,
        /// The message of the panic.
        panic: String,
    },
    /// [`Config::rename`](crate::Config::rename) was called for an rpc that does not exist.
    #[error("rename {0}: no such rpc")]
    NoSuchMethod(String),
    /// A parameter passed to the protoc plugin is unknown or malformed.
    #[error(
        "unknown parameter {0:?}: expected `root=PATH`, `default_runtime=BOOL`, `unimplemented=BOOL`, `client=BOOL`, \
         `server=BOOL` or `rename=RPC:NAME`"
    )]
    Parameter(String),
    /// The input of the protoc plugin does not decode.
    #[error("failed to decode the CodeGeneratorRequest: {0}")]
    Request(String),
    /// A file could not be read or written.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A place in a .proto file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// The path of the file.
    pub file: String,
    /// The line and column, starting at 1, if known.
    pub at: Option<(u32, u32)>,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.at {
            Some((line, column)) => write!(f, "{}:{line}:{column}", self.file),
            None => f.write_str(&self.file),
        }
    }
}
