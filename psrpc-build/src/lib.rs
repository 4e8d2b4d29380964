//! Generates Rust code for PSRPC services from .proto files. prost generates the messages. For each
//! service, this crate generates a typed client, a trait to implement, and a server that runs the
//! implementation. No protoc is needed.
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
//! Include the generated code by the .proto's package name: `psrpc::include_proto!("hats.v1");`.
//!
//! The crate that includes it depends on `prost`, on `prost-types` if its messages use Google's
//! well-known types, and on a crate named `psrpc`. In most projects that is `psrpc-tokio` under the
//! name `psrpc`; [`Config::root`] sets another name. A project that brings its own runtime depends
//! on the crate `psrpc` itself, sets [`default_runtime(false)`](Config::default_runtime), and
//! creates clients and servers with `with_runtime`.
//!
//! # Options of an rpc
//!
//! To set options, import `options.proto`. The file ships with this crate and needs no include
//! path.
//!
//! | `option (psrpc.options)` | |
//! |---|---|
//! | none | queue: the bus hands each request to one server |
//! | `.type = AFFINITY` | every server sees the request and may bid for it with an affinity; the client grants one bid |
//! | `.topics = true` | calls go to the servers that registered a topic: one string, named `topic` |
//! | `.topic_params.names` | the names of the strings that make up a topic, instead of `topic` |
//! | `.topic_params.typed = true` | the parts of a topic may have types of their own |
//! | `.topic_params.group` | rpcs of one group can be registered together; they must have the same topic parameters |
//! | `.topic_params.single_server = true` | calls skip bidding, because at most one server registers each topic. You must ensure that there is only one |
//! | `.topic_params` without `.topics = true` | no topics: `names`, `typed` and `group` are ignored, as in Go, and `names` causes a build warning; `single_server` still takes effect |
//! | `.type = MULTI` | every server responds to a call; every subscriber gets each update |
//! | `.stream = true` | clients open streams: they send messages of the request type and receive messages of the response type |
//! | `.subscription = true` | clients subscribe to updates that servers publish; an update has the response type |
//! | `.queue`, `.affinity_func`, `.multi` | the deprecated spelling of `.type`, still accepted |
//!
//! # What is generated
//!
//! This .proto:
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
//! generates:
//!
//! | item | |
//! |---|---|
//! | `trait Hats` | the trait that your service implements: `async fn fit(&self, request: Request<Ask>) -> Result<Reply, Error>`, `find_hat` and `census`; `async fn parade(&self, stream: ServerStream<Reply, Ask>) -> Result<(), Error>`; and, not async, `fn fit_affinity(&self, request: &Request<Ask>) -> f32` |
//! | `HatsServer` | `new(bus, service)`, `with_options(bus, service, options)` and `with_runtime(bus, runtime, service, options)` create a server and serve the rpcs without topics; `register_find_hat_topic(aisle, row)`, `deregister_find_hat_topic(aisle, row)` and, for the whole group, `register_all_rack_topics(aisle, row)` and `deregister_all_rack_topics(aisle, row)` start and stop serving a topic; `publish_rumour(&reply)`; `shutdown()`, `kill()`, `server()` |
//! | `HatsClient` | `new(bus)`, `with_options(bus, options)` and `with_runtime(bus, runtime, options)`; `fit(ask)` and `find_hat(aisle, row, ask)` return a `psrpc::Call`; `census(ask)` returns a `psrpc::MultiCall`, `parade()` a `psrpc::OpenStream`, `subscribe_rumour()` a `psrpc::Subscribe`; `close()`, `shutdown()`, `client()` |
//! | `trait HatsApi` | the calls of `HatsClient` as a trait, to mock in unit tests; topics are `&str` |
//! | `HATS_SERVICE` | a static that holds the names on the wire |
//!
//! With `typed: true`, `HatsClient` and `HatsServer` have a type parameter for each part of a
//! topic: `AisleTopic` and `RowTopic`. Each defaults to `str`; `with_topic_types::<Aisle, Row>()`
//! sets other types, which must implement `AsRef<str>`. Typed parts are passed by reference.
//!
//! Services are generated for the files passed to [`compile`]; messages are generated for their
//! imports as well. [`Config::client`] and [`Config::server`] turn one side off. An rpc with
//! `option deprecated = true`, or in a service with that option, is `#[deprecated]` for clients.
//!
//! `cargo doc --open` in your project shows the generated items with the comments of the .proto.
//! Code blocks in comments are shown as text and are not run as doctests.
//!
//! # Errors
//!
//! If code cannot be generated, compilation fails with an [`Error`] that gives the file, line and
//! column, the reason, and usually a fix. For example, names that differ in protobuf can collide in
//! Rust, such as the enum values `STATUS_OK` and `OK` of `Status`. Files with an edition are not
//! supported yet. Generated code compiles without warnings.
//!
//! # Warnings
//!
//! In a build script, warnings are printed as `cargo:warning=` lines, which cargo shows. The protoc
//! plugin prints them to stderr. There is a warning for
//!
//! * an rpc whose `topic_params.names` is ignored because the rpc has no topics;
//! * a service in which queue-routed updates and queue-routed calls share a queue group on NATS,
//!   because both have topics or neither has. About half of the updates, and of the requests, then
//!   reach a member of the group that cannot use them. The warning lists the alternatives.

#![forbid(unsafe_code)]
#![deny(missing_docs, missing_debug_implementations)]

mod collisions;
mod comments;
mod compile;
mod error;
mod generate;
mod hint;
mod model;
mod names;
mod options;
mod plugin;
mod prost_config;
mod shared_queue;
mod well_known;
mod workarounds;
mod written;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use prost_reflect::DescriptorPool;
use prost_types::FileDescriptorSet;

pub use error::{Error, Position};
pub use plugin::run_plugin;

use crate::generate::Generator;
use crate::model::Warning;
use crate::prost_config::ProstConfig;
use crate::written::Call;

/// Generates code for `protos`, which import from `includes`, into cargo's `OUT_DIR`.
///
/// # Errors
///
/// Returns an error if a file does not compile, or if a definition cannot become a PSRPC service;
/// the error names the place.
pub fn compile(protos: &[impl AsRef<Path>], includes: &[impl AsRef<Path>]) -> Result<(), Error> {
    Config::new().compile(protos, includes)
}

/// Options of code generation.
pub struct Config {
    prost: prost_build::Config,
    out_dir: Option<PathBuf>,
    root: String,
    default_runtime: bool,
    unimplemented: bool,
    client: bool,
    server: bool,
    renames: BTreeMap<String, String>,
}

impl Default for Config {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { prost: _, out_dir, root, default_runtime, unimplemented, client, server, renames } = self;
        f.debug_struct("Config")
            .field("out_dir", out_dir)
            .field("root", root)
            .field("default_runtime", default_runtime)
            .field("unimplemented", unimplemented)
            .field("client", client)
            .field("server", server)
            .field("renames", renames)
            .finish_non_exhaustive()
    }
}

impl Config {
    /// Creates a configuration with the default options.
    pub fn new() -> Self {
        let mut prost = prost_build::Config::new();
        // prost needs the type names to pack messages as details of an error.
        prost.enable_type_names();
        Self {
            prost,
            out_dir: None,
            root: "::psrpc".into(),
            default_runtime: true,
            unimplemented: false,
            client: true,
            server: true,
            renames: BTreeMap::new(),
        }
    }

    /// Sets the path by which generated code refers to the psrpc crate. Default: `::psrpc`.
    pub fn root(&mut self, path: impl Into<String>) -> &mut Self {
        self.root = path.into();
        self
    }

    /// Sets whether to generate constructors that use the default runtime of the crate at
    /// [`root`](Self::root). Default: true. Set it to false if that crate is `psrpc` itself, which
    /// has no default runtime.
    pub fn default_runtime(&mut self, available: bool) -> &mut Self {
        self.default_runtime = available;
        self
    }

    /// Sets whether generated traits provide default methods. A method that a service does not
    /// implement then fails with the code `unimplemented`, or makes no bid if it has an affinity.
    /// Adding an rpc to the .proto then does not break existing services. Default: false; the
    /// compiler reports missing methods.
    pub fn unimplemented(&mut self, allowed: bool) -> &mut Self {
        self.unimplemented = allowed;
        self
    }

    /// Sets whether to generate clients and their `Api` traits. Default: true. Set it to false for
    /// programs that only serve.
    pub fn client(&mut self, generated: bool) -> &mut Self {
        self.client = generated;
        self
    }

    /// Sets whether to generate servers and the traits to implement. Default: true. Set it to false
    /// for programs that only call.
    pub fn server(&mut self, generated: bool) -> &mut Self {
        self.server = generated;
        self
    }

    /// Gives an rpc another name in Rust, as in `rename("hats.v1.Hats.New", "new_hat")`. Its name
    /// on the wire stays the same. Pass a keyword without `r#`.
    pub fn rename(&mut self, rpc: impl Into<String>, name: impl Into<String>) -> &mut Self {
        self.renames.insert(rpc.into(), name.into());
        self
    }

    /// Sets the output directory. Default: cargo's `OUT_DIR`.
    pub fn out_dir(&mut self, path: impl Into<PathBuf>) -> &mut Self {
        let path = path.into();
        self.prost.out_dir(path.clone());
        self.out_dir = Some(path);
        self
    }

    /// Returns prost's configuration, which controls the generated messages: attributes, extern
    /// paths and so on.
    pub fn prost(&mut self) -> &mut prost_build::Config {
        &mut self.prost
    }

    /// Generates code for the services in `protos`, which import from `includes`, and for the
    /// messages in `protos` and their imports.
    ///
    /// Within one process, a second call may overwrite a package only if the new code contains
    /// everything that the first call generated.
    ///
    /// # Errors
    ///
    /// Returns an error if a file does not compile, if a definition cannot become a PSRPC service
    /// or has no distinct Rust name, or if a package would lose code that an earlier call
    /// generated. The error names the place.
    pub fn compile(
        &mut self,
        protos: &[impl AsRef<Path>],
        includes: &[impl AsRef<Path>],
    ) -> Result<(), Error> {
        let names: Vec<_> = protos.iter().map(|proto| proto.as_ref().display().to_string()).collect();
        without_panics(&names.join(", "), || self.compile_files(protos, includes))
    }

    fn compile_files(
        &mut self,
        protos: &[impl AsRef<Path>],
        includes: &[impl AsRef<Path>],
    ) -> Result<(), Error> {
        let compiled = compile::compile(protos, includes)?;
        // Cargo sets `TARGET` for build scripts only.
        let in_build_script = std::env::var_os("TARGET").is_some();
        if in_build_script {
            for file in &compiled.read {
                println!("cargo:rerun-if-changed={}", file.display());
            }
        }
        if let Some(path) = ProstConfig::of(&self.prost).descriptor_set {
            fs::write(path, &compiled.descriptor_set)?;
        }
        let locate = |position: &mut Position| {
            if let Some(path) = compile::located(position.file.as_ref(), includes) {
                position.file = path.display().to_string();
            }
        };
        let call = Call::of(&compiled.files, includes, format!("{self:?} {:?}", self.prost));
        let mut warnings = self.generate(&compiled.pool, compiled.files).map_err(|mut error| {
            if let Error::Service { position, .. } = &mut error {
                locate(position);
            }
            error
        })?;
        for warning in &mut warnings {
            locate(&mut warning.position);
            if in_build_script {
                println!("cargo:warning={warning}");
            }
        }
        match self.directory() {
            Some(directory) => call.record(&directory, |package| self.file_names(package)),
            None => Ok(()),
        }
    }

    fn generate(
        &mut self,
        pool: &DescriptorPool,
        mut files: FileDescriptorSet,
    ) -> Result<Vec<Warning>, Error> {
        let prost = ProstConfig::of(&self.prost);
        names::check(pool, &files)?;
        let (services, warnings) = model::services(pool, &files, &self.renames)?;
        collisions::check(pool, &files, &prost)?;
        well_known::check(pool, &files, &prost)?;
        workarounds::aliases(pool, &mut files);
        for group in workarounds::recursive_groups(pool) {
            self.prost.boxed(group);
        }
        self.prost.service_generator(Box::new(Generator {
            services,
            root: self.root.clone(),
            default_runtime: self.default_runtime,
            unimplemented: self.unimplemented,
            client: self.client,
            server: self.server,
        }));
        let packages: BTreeSet<_> = files.file.iter().map(|file| file.package().to_owned()).collect();
        self.prost.compile_fds(files)?;
        self.name_by_package(&packages)?;
        Ok(warnings)
    }

    /// Returns the output directory, if one is known.
    fn directory(&self) -> Option<PathBuf> {
        let cargo = || std::env::var_os("OUT_DIR").map(PathBuf::from);
        self.out_dir.clone().or_else(cargo)
    }

    /// Returns the two file names of a package: the one that prost chooses, such as `r#type.rs` for
    /// the package `type`, and the package's own name, by which `include_proto!` finds it.
    fn file_names(&self, package: &str) -> [String; 2] {
        let module = collisions::module_of_package(package).join(".");
        match package {
            "" => {
                let name = format!("{}.rs", ProstConfig::of(&self.prost).default_file);
                [name.clone(), name]
            }
            package => [format!("{module}.rs"), format!("{package}.rs")],
        }
    }

    fn name_by_package(&self, packages: &BTreeSet<String>) -> Result<(), Error> {
        let Some(out) = self.directory() else { return Ok(()) };
        for package in packages {
            let [by_module, by_package] = self.file_names(package).map(|name| out.join(name));
            if by_module != by_package && by_module.exists() {
                fs::copy(by_module, by_package)?;
            }
        }
        Ok(())
    }
}

/// Runs `work` and turns a panic into an error, so that an unsupported .proto does not look like a
/// bug in the build script.
fn without_panics<T>(files: &str, work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    // `work` changes only values that are dropped, or a configuration that stays valid.
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
        Err(Error::Panic { files: files.to_owned(), panic: text.unwrap_or_else(|| "a panic".to_owned()) })
    })
}
