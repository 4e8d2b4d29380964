//! PSRPC services from .proto files: the messages (by prost), and for each service a typed client,
//! a trait to implement and a server that runs it. No protoc is needed.
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
//! The crate that includes it depends on `prost`, on `prost-types` if its messages use Google's
//! well-known types, and on `psrpc`, by which name most projects know `psrpc-tokio`;
//! [`Config::root`] changes that name. A project with a runtime of its own depends on the crate
//! `psrpc` itself, says [`default_runtime(false)`](Config::default_runtime), and makes clients and
//! servers with `with_runtime`.
//!
//! # Options of an rpc
//!
//! A .proto says `import "options.proto";` to set them; the file comes with this crate, and needs
//! no path.
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
//! | `.topic_params` without `.topics = true` | no topics: `names`, `typed` and `group` are then ignored, as in Go, and `names` is a warning of the build; `single_server` counts even so |
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
//! With `typed: true`, `HatsClient` and `HatsServer` have a type parameter for each name,
//! `AisleTopic` and `RowTopic`. Each is `str` until `with_topic_types::<Aisle, Row>()` gives them
//! types, which only need to be `AsRef<str>`. Such a topic is passed as a reference.
//!
//! The services are those of the files that are named to [`compile`]; the messages are also those
//! of the files that they import. [`Config::client`] and [`Config::server`] leave a side out. An
//! rpc with `option deprecated = true`, and each rpc of such a service, is `#[deprecated]` for
//! clients.
//!
//! `cargo doc --open` in your project shows all of it, with the comments of the .proto. A code
//! block in a comment is shown as text, and is no doctest.
//!
//! # What is refused
//!
//! What cannot be generated is an [`Error`] that names the file, the line and the column, why, and
//! what to do: among others, names that differ in protobuf and not in Rust, such as the enum values
//! `STATUS_OK` and `OK` of `Status`, and files of an edition, which are not supported yet. All else
//! compiles without warnings.
//!
//! # What is warned about
//!
//! A build script prints `cargo:warning=` lines, which cargo shows. The protoc plugin prints
//! warnings to stderr. There is a warning for
//!
//! * an rpc whose `topic_params.names` are ignored, because it has no topics;
//! * a service with queue-routed updates and queue-routed calls that share a queue group on NATS,
//!   because both have topics or neither has. About half of the updates, and of the requests, then
//!   go to a member of the group that cannot use them. The warning says what to do.

#![forbid(unsafe_code)]
#![deny(missing_docs, missing_debug_implementations)]

mod collisions;
mod comments;
mod compile;
mod error;
mod generate;
mod hint;
mod mend;
mod model;
mod names;
mod options;
mod plugin;
mod prost_config;
mod shared_queue;
mod well_known;
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
/// When a file does not compile, or has something that cannot be a PSRPC service; the error names
/// the place.
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
            client: true,
            server: true,
            renames: BTreeMap::new(),
        }
    }

    /// The path by which generated code names the psrpc crate. Default `::psrpc`.
    pub fn root(&mut self, path: impl Into<String>) -> &mut Self {
        self.root = path.into();
        self
    }

    /// Whether clients and servers can be made without a runtime, on that of the crate at
    /// [`root`](Self::root). Default true; false is for the crate `psrpc` itself, which has
    /// none.
    pub fn default_runtime(&mut self, has: bool) -> &mut Self {
        self.default_runtime = has;
        self
    }

    /// Whether a service need not implement all of its trait: rpcs that it does not implement are
    /// then answered `unimplemented`, and get no bid where servers bid with their affinity. So
    /// an rpc that is added to the .proto breaks nobody. Default false, which has the compiler
    /// tell what is missing.
    pub fn unimplemented(&mut self, allowed: bool) -> &mut Self {
        self.unimplemented = allowed;
        self
    }

    /// Whether clients are generated, with the traits that stand for them. Default true; false is
    /// for programs that only serve.
    pub fn client(&mut self, generated: bool) -> &mut Self {
        self.client = generated;
        self
    }

    /// Whether servers are generated, with the traits to implement. Default true; false is for
    /// programs that only call.
    pub fn server(&mut self, generated: bool) -> &mut Self {
        self.server = generated;
        self
    }

    /// Gives an rpc another Rust name, as `rename("hats.v1.Hats.New", "new_hat")`; its name on the
    /// wire stays. A keyword is given without `r#`.
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

    /// Generates code for `protos`, which import from `includes`: for their services, and for the
    /// messages of all files that they import.
    ///
    /// Within one process, a second call may write a package again only where nothing of the first
    /// is lost.
    ///
    /// # Errors
    ///
    /// When a file does not compile, or has something that cannot be a PSRPC service or has no Rust
    /// name of its own; the error names the place.
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
        // Cargo sets it for build scripts alone.
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
        mend::aliases(pool, &mut files);
        for group in mend::recursive_groups(pool) {
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

    /// Where the code goes, if that is known.
    fn directory(&self) -> Option<PathBuf> {
        let cargo = || std::env::var_os("OUT_DIR").map(PathBuf::from);
        self.out_dir.clone().or_else(cargo)
    }

    /// The names of the file of a package. Prost names it as it names its modules, `r#type.rs` for
    /// the package `type`. Such a file is there under the name of the package too, so that
    /// `include_proto!` takes that for every package.
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

/// Runs `work`, and makes an error of a panic: what a .proto says must not look like a bug of a
/// build script.
fn without_panics<T>(files: &str, work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    // What `work` changes is dropped, or is a configuration that is as good as before.
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
        Err(Error::Panic { files: files.to_owned(), panic: text.unwrap_or_else(|| "a panic".to_owned()) })
    })
}
