//! What can be wrong with a .proto.

use std::fmt;
use std::io;

/// Why no code was generated. Its `Debug` form, which a build script shows when it returns one, is
/// its text.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file does not compile as protobuf, or an import of it is not found.
    #[error("{0}")]
    Proto(String),
    /// Something in a file cannot be a PSRPC service.
    #[error("{position}: {problem}")]
    Service {
        /// Where.
        position: Position,
        /// What is wrong with it.
        problem: String,
    },
    /// A package was generated before in this process, from other files or with other settings, and
    /// what was generated then would be lost.
    #[error(
        "package {package} was generated into the same directory before, from {earlier}, and would be overwritten by what \
         is generated from {later}: give all files of the package to one call, or the calls an `out_dir` each"
    )]
    Overwritten {
        /// The package.
        package: String,
        /// The files of the earlier call, separated by commas.
        earlier: String,
        /// The files of this call, separated by commas.
        later: String,
    },
    /// The compiler or prost has panicked.
    #[error(
        "{files}: generating code failed unexpectedly: {panic}. Unless an attribute or a path given to `config.prost()` is \
         malformed, this is a bug of psrpc-build; please report it with the file"
    )]
    Panic {
        /// The files that code was generated for, separated by commas.
        files: String,
        /// What the panic said.
        panic: String,
    },
    /// A name given to [`Config::rename`](crate::Config::rename) names no rpc.
    #[error("rename: there is no rpc {0}")]
    NoSuchMethod(String),
    /// A parameter of the protoc plugin is not one that it knows.
    #[error(
        "unknown parameter {0:?}: known are `root=PATH`, `default_runtime=BOOL`, `unimplemented=BOOL`, `client=BOOL`, \
         `server=BOOL` and `rename=RPC:NAME`"
    )]
    Parameter(String),
    /// The request of protoc does not decode.
    #[error("the request is no CodeGeneratorRequest: {0}")]
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

/// A place in a .proto.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// The file.
    pub file: String,
    /// The line and column, from 1, where they are known.
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
