//! PSRPC services from .proto files: the messages (by prost), and for each service a typed client, a trait to implement
//! and a server that runs it. No protoc is needed.
//!
//! In `build.rs`:
//!
//! ```no_run
//! # fn main() -> Result<(), psrpc_build::Error> {
//! psrpc_build::compile(&["proto/hats.proto"], &["proto"])?;
//! # Ok(())
//! # }
//! ```
//!
//! and where the code is to be, with the .proto's package, `psrpc::include_proto!("hats.v1");`.
//!
//! The crate that includes it depends on `prost`, on `prost-types` if its messages use Google's well-known types, and on
//! `psrpc`, by which name most projects know `psrpc-tokio`; [`Config::root`] changes that name. A project with a runtime of its own depends on the crate `psrpc` itself, says
//! [`default_runtime(false)`](Config::default_runtime), and makes clients and servers with `with_runtime`.
//!
//! # Options of an rpc
//!
//! A .proto says `import "options.proto";` to set them; the file comes with this crate, and needs no path.
//!
//! | `option (psrpc.options)` | |
//! |---|---|
//! | nothing | a queue: the bus hands each request to one server |
//! | `.type = AFFINITY` | every server sees the request and says how well it suits; the client picks one |
//! | `.topics = true` | calls go to the servers that are registered for a topic, a string named `topic` |
//! | `.topic_params.names` | the names of the strings that a topic is made of instead |
//! | `.topic_params.typed = true` | those may be of types of their own |
//! | `.topic_params.group` | rpcs of one group can be registered together; their topics must be alike |
//! | `.topic_params.single_server = true` | at most one server is registered for a topic, so that it needs no claim and is not asked for its affinity. That there is only one is up to you |
//! | `.topic_params` without `.topics = true` | no topics: `names`, `typed` and `group` are then ignored, as in Go; `single_server` counts even so |
//! | `.type = MULTI` | every server answers; of a subscription, every client gets every update |
//! | `.stream = true` | clients open streams, on which they send the request's type and servers the response's |
//! | `.subscription = true` | clients subscribe to what servers publish, which is of the response's type |
//! | `.queue`, `.affinity_func`, `.multi` | the old spelling of `.type`, understood too |
//!
//! # What is generated
//!
//! From
//!
//! ```proto
//! syntax = "proto3";
//! package hats.v1;
//! import "options.proto";
//!
//! service Hats {
//!   rpc Fit(Ask) returns (Reply) {
//!     option (psrpc.options).type = AFFINITY;
//!   }
//!   rpc FindHat(Ask) returns (Reply) {
//!     option (psrpc.options) = {
//!       topics: true
//!       topic_params: { group: "rack" names: ["aisle", "row"] }
//!     };
//!   }
//!   rpc Census(Ask) returns (Reply) {
//!     option (psrpc.options).type = MULTI;
//!   }
//!   rpc Parade(Ask) returns (Reply) {
//!     option (psrpc.options).stream = true;
//!   }
//!   rpc Rumour(Ask) returns (Reply) {
//!     option (psrpc.options).subscription = true;
//!   }
//! }
//! ```
//!
//! come
//!
//! | item | |
//! |---|---|
//! | `trait Hats` | to be implemented by a service: `async fn fit(&self, request: Request<Ask>) -> Result<Reply, Error>`, `find_hat` and `census`; `async fn parade(&self, stream: ServerStream<Reply, Ask>) -> Result<(), Error>`; and, not async, `fn fit_affinity(&self, request: &Request<Ask>) -> f32` |
//! | `HatsServer` | `new(bus, service)`, `with_options(bus, service, options)` and `with_runtime(bus, runtime, service, options)` serve the rpcs without topics; `register_find_hat_topic(aisle, row)`, `deregister_find_hat_topic(aisle, row)` and, for the whole group, `register_all_rack_topics(aisle, row)` and `deregister_all_rack_topics(aisle, row)` those with; `publish_rumour(&reply)`; `shutdown()`, `kill()`, `server()` |
//! | `HatsClient` | `new(bus)`, `with_options(bus, options)` and `with_runtime(bus, runtime, options)`; `fit(ask)` and `find_hat(aisle, row, ask)`, which give a `psrpc::Call`; `census(ask)`, a `psrpc::MultiCall`; `parade()`, a `psrpc::OpenStream`; `subscribe_rumour()`, a `psrpc::Subscribe`; `close()`, `shutdown()`, `client()` |
//! | `trait HatsApi` | what `HatsClient` does, to take something else in its place in unit tests; topics are `&str` in it |
//! | `HATS_SERVICE` | the names on the wire |
//!
//! With `typed: true`, `HatsClient` and `HatsServer` have a type parameter for each name, `AisleTopic` and `RowTopic`. Each
//! is `str` until `with_topic_types::<Aisle, Row>()` gives them types, which only need to be `AsRef<str>`. Such a topic is
//! passed as a reference.
//!
//! `cargo doc --open` in your project shows all of it, with the comments of the .proto.

#![forbid(unsafe_code)]
#![deny(missing_docs, missing_debug_implementations)]

mod compile;
mod error;
mod generate;
mod hint;
mod model;
mod names;
mod options;
mod plugin;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use heck::ToSnakeCase;
use prost_reflect::DescriptorPool;
use prost_types::FileDescriptorSet;

pub use error::{Error, Position};
pub use plugin::run_plugin;

use crate::generate::Generator;

/// Generates code for `protos`, which import from `includes`, into cargo's `OUT_DIR`.
///
/// # Errors
///
/// When a file does not compile, or has something that cannot be a PSRPC service; the error names the place.
pub fn compile(protos: &[impl AsRef<Path>], includes: &[impl AsRef<Path>]) -> Result<(), Error> {
    Config::new().compile(protos, includes)
}

/// How code is generated.
pub struct Config {
    prost: prost_build::Config,
    out_dir: Option<PathBuf>,
    root: String,
    default_runtime: bool,
    unimplemented: bool,
    renames: BTreeMap<String, String>,
}

impl Default for Config {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { prost: _, out_dir, root, default_runtime, unimplemented, renames } = self;
        f.debug_struct("Config")
            .field("out_dir", out_dir)
            .field("root", root)
            .field("default_runtime", default_runtime)
            .field("unimplemented", unimplemented)
            .field("renames", renames)
            .finish_non_exhaustive()
    }
}

impl Config {
    /// The defaults.
    pub fn new() -> Self {
        let mut prost = prost_build::Config::new();
        // The details of an error are known by the names of their types.
        prost.enable_type_names();
        Self {
            prost,
            out_dir: None,
            root: "::psrpc".into(),
            default_runtime: true,
            unimplemented: false,
            renames: BTreeMap::new(),
        }
    }

    /// The path by which generated code names the psrpc crate. Default `::psrpc`.
    pub fn root(&mut self, path: impl Into<String>) -> &mut Self {
        self.root = path.into();
        self
    }

    /// Whether clients and servers can be made without a runtime, on that of the crate at [`root`](Self::root). Default
    /// true; false is for the crate `psrpc` itself, which has none.
    pub fn default_runtime(&mut self, has: bool) -> &mut Self {
        self.default_runtime = has;
        self
    }

    /// Whether a service need not implement all of its trait: rpcs that it does not implement are then answered `unimplemented`, and
    /// get no bid where servers bid with their affinity. So an rpc that is added to the .proto breaks nobody. Default false, which
    /// has the compiler tell what is missing.
    pub fn unimplemented(&mut self, allowed: bool) -> &mut Self {
        self.unimplemented = allowed;
        self
    }

    /// Gives an rpc another Rust name, as `rename("hats.v1.Hats.New", "new_hat")`; its name on the wire stays. A keyword is given
    /// without `r#`.
    pub fn rename(&mut self, rpc: impl Into<String>, name: impl Into<String>) -> &mut Self {
        self.renames.insert(rpc.into(), name.into());
        self
    }

    /// Where the code goes. Default: cargo's `OUT_DIR`.
    pub fn out_dir(&mut self, path: impl Into<PathBuf>) -> &mut Self {
        let path = path.into();
        self.prost.out_dir(path.clone());
        self.out_dir = Some(path);
        self
    }

    /// How prost generates the messages: attributes, extern paths and so on.
    pub fn prost(&mut self) -> &mut prost_build::Config {
        &mut self.prost
    }

    /// Generates code for `protos`, which import from `includes`.
    ///
    /// # Errors
    ///
    /// When a file does not compile, or has something that cannot be a PSRPC service; the error names the place.
    pub fn compile(
        &mut self,
        protos: &[impl AsRef<Path>],
        includes: &[impl AsRef<Path>],
    ) -> Result<(), Error> {
        let compiled = compile::compile(protos, includes)?;
        // Cargo sets it for build scripts alone.
        if std::env::var_os("TARGET").is_some() {
            for file in &compiled.read {
                println!("cargo:rerun-if-changed={}", file.display());
            }
        }
        self.generate(&compiled.pool, compiled.files).map_err(|error| match error {
            Error::Service { mut position, problem } => {
                if let Some(path) = compile::located(position.file.as_ref(), includes) {
                    position.file = path.display().to_string();
                }
                Error::Service { position, problem }
            }
            other => other,
        })
    }

    fn generate(&mut self, pool: &DescriptorPool, files: FileDescriptorSet) -> Result<(), Error> {
        names::check(pool, &files)?;
        let services = model::services(pool, &self.renames)?;
        let (root, default_runtime, unimplemented) =
            (self.root.clone(), self.default_runtime, self.unimplemented);
        self.prost.service_generator(Box::new(Generator { services, root, default_runtime, unimplemented }));
        let packages: BTreeSet<_> = files.file.iter().map(|file| file.package().to_owned()).collect();
        self.prost.compile_fds(files)?;
        self.name_by_package(&packages)
    }

    /// Prost names the file of a package as it names its modules, `r#type.rs` for the package `type`. Such a file is there
    /// under the name of the package too, so that `include_proto!` takes that for every package.
    fn name_by_package(&self, packages: &BTreeSet<String>) -> Result<(), Error> {
        let cargo = || std::env::var_os("OUT_DIR").map(PathBuf::from);
        let Some(out) = self.out_dir.clone().or_else(cargo) else { return Ok(()) };
        for package in packages {
            let module: Vec<_> =
                package.split('.').map(|part| model::rust_name(&part.to_snake_case())).collect();
            let by_module = out.join(format!("{}.rs", module.join(".")));
            let by_package = out.join(format!("{package}.rs"));
            if by_module != by_package && by_module.exists() {
                fs::copy(by_module, by_package)?;
            }
        }
        Ok(())
    }
}
