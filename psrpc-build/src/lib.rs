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
//! and where the code is to be, with the .proto's package:
//!
//! ```ignore
//! psrpc::include_proto!("hats.v1");
//! ```
//!
//! A .proto says `import "options.proto";` to set the options of an rpc; the file comes with this crate, and needs no path.
//! For a service `Hats` there are then `HatsClient`, the trait `Hats` and `HatsServer`. Generated code names the crate
//! `::psrpc`, which is `psrpc-tokio` under that name in most projects; [`Config::root`] changes it.

#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod compile;
mod error;
mod generate;
mod model;
mod options;
mod plugin;

use std::collections::{BTreeMap, BTreeSet};
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
    renames: BTreeMap<String, String>,
}

impl Default for Config {
    fn default() -> Self {
        Self::new()
    }
}

impl Config {
    /// The defaults.
    pub fn new() -> Self {
        Self {
            prost: prost_build::Config::new(),
            out_dir: None,
            root: "::psrpc".into(),
            default_runtime: true,
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

    /// Gives an rpc another Rust name, as `rename("hats.v1.Hats.New", "new_hat")`; its name on the wire stays.
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
        mut self,
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
        self.generate(&compiled.pool, compiled.files)
    }

    fn generate(&mut self, pool: &DescriptorPool, files: FileDescriptorSet) -> Result<(), Error> {
        let services = model::services(pool, &self.renames)?;
        let (root, default_runtime) = (self.root.clone(), self.default_runtime);
        self.prost.service_generator(Box::new(Generator { services, root, default_runtime }));
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
