//! A batch: a crate with generated code of many .proto files, each in its own module, so that one
//! compiler run checks all of them.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use psrpc_build::Config;

use crate::{Error, ROOT, work_directory};

/// The lints that are always denied.
const DENIED_LINTS: &str = "warnings";

/// A crate of generated code.
#[derive(Debug)]
pub struct Batch {
    directory: PathBuf,
    lints: String,
    units: Vec<String>,
}

/// Compiler errors and warnings, by the name of the unit.
pub type CompilerErrors = BTreeMap<String, Vec<String>>;

impl Batch {
    /// Creates a batch in the directory `name` of the [work directory](work_directory), and removes
    /// an earlier one.
    ///
    /// # Errors
    ///
    /// Returns an error if a file cannot be written.
    pub fn new(name: &str) -> Result<Self, Error> {
        let directory = work_directory().join(name);
        if directory.exists() {
            fs::remove_dir_all(&directory)?;
        }
        fs::create_dir_all(directory.join("src"))?;
        Ok(Self { directory, lints: DENIED_LINTS.to_owned(), units: Vec::new() })
    }

    /// Denies another lint, such as `missing_docs`.
    pub fn deny(&mut self, lint: &str) -> &mut Self {
        self.lints += ", ";
        self.lints += lint;
        self
    }

    /// Generates code for `protos`, as a module called `name`.
    ///
    /// # Errors
    ///
    /// Returns the error of psrpc-build if it rejects the files. Nothing is added then.
    pub fn add(
        &mut self,
        name: &str,
        protos: &[PathBuf],
        includes: &[PathBuf],
    ) -> Result<(), psrpc_build::Error> {
        let out = self.directory.join("src").join(name);
        fs::create_dir_all(&out)?;
        let result = generate(&out, protos, includes);
        match result {
            Ok(()) => self.units.push(name.to_owned()),
            Err(_) => fs::remove_dir_all(&out)?,
        }
        result
    }

    /// Returns the number of units.
    #[must_use]
    pub fn len(&self) -> usize {
        self.units.len()
    }

    /// Returns `true` if there are no units.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.units.is_empty()
    }

    /// Returns the size of the generated code in bytes.
    ///
    /// # Errors
    ///
    /// Returns an error if a directory cannot be read.
    pub fn bytes(&self) -> Result<u64, Error> {
        let mut bytes = 0;
        for unit in &self.units {
            for entry in fs::read_dir(self.directory.join("src").join(unit))? {
                bytes += entry?.metadata()?.len();
            }
        }
        Ok(bytes)
    }

    /// Runs a cargo command on the crate, such as `check`, and returns the compiler errors of each
    /// unit.
    ///
    /// # Errors
    ///
    /// Returns an error if cargo fails for another reason than an error in a unit.
    pub fn cargo(&self, arguments: &[&str]) -> Result<CompilerErrors, Error> {
        self.write()?;
        let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
            .args(arguments)
            .args(["--offline", "--quiet", "--message-format=short"])
            .current_dir(&self.directory)
            .env("CARGO_TARGET_DIR", work_directory().join("build"))
            .env("RUSTDOCFLAGS", "-D warnings")
            .env_remove("RUSTFLAGS")
            .output()?;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        let mut errors = CompilerErrors::new();
        for line in text.lines() {
            let unit = line.strip_prefix("src/").and_then(|rest| rest.split_once('/'));
            if let Some((unit, _)) = unit.filter(|_| line.contains(": error") || line.contains(": warning")) {
                errors.entry(unit.to_owned()).or_default().push(line.to_owned());
            }
        }
        if !output.status.success() && errors.is_empty() {
            return Err(format!("cargo {arguments:?} failed in {}: {text}", self.directory.display()).into());
        }
        Ok(errors)
    }

    fn write(&self) -> Result<(), Error> {
        let mut manifest =
            "[package]\nname = \"batch\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n[workspace]\n\n\
                            [profile.dev]\ndebug = false\nincremental = false\n\n[dependencies]\n"
                .to_owned();
        writeln!(manifest, "psrpc = {{ path = \"{ROOT}/psrpc\" }}")?;
        for (name, features) in [("prost", "\"derive\", \"std\""), ("prost-types", "\"std\"")] {
            let version = locked_version(name)?;
            writeln!(
                manifest,
                "{name} = {{ version = \"={version}\", default-features = false, features = [{features}] }}"
            )?;
        }
        fs::write(self.directory.join("Cargo.toml"), manifest)?;
        // The repository's clippy rules do not apply to generated code.
        fs::write(self.directory.join("clippy.toml"), "")?;
        fs::copy(Path::new(ROOT).join("Cargo.lock"), self.directory.join("Cargo.lock"))?;
        let mut library = format!("//! Generated code.\n\n#![deny({})]\n\n", self.lints);
        for unit in &self.units {
            writeln!(
                library,
                "/// Generated code.\npub mod {unit} {{\n    include!(\"{unit}/mod.rs\");\n}}"
            )?;
        }
        fs::write(self.directory.join("src/lib.rs"), library)?;
        Ok(())
    }
}

/// Returns the version of a package in the repository's lock file.
fn locked_version(package: &str) -> Result<String, Error> {
    let lock = fs::read_to_string(Path::new(ROOT).join("Cargo.lock"))?;
    let (_, rest) = lock
        .split_once(&format!("name = \"{package}\"\nversion = \""))
        .ok_or("the package is not in Cargo.lock")?;
    Ok(rest.split('"').next().unwrap_or_default().to_owned())
}

/// Generates code for `protos` into a directory.
///
/// # Errors
///
/// Returns the error of psrpc-build if it rejects the files.
pub fn generate(out: &Path, protos: &[PathBuf], includes: &[PathBuf]) -> Result<(), psrpc_build::Error> {
    let mut config = Config::new();
    config.default_runtime(false).out_dir(out);
    config.prost().include_file("mod.rs");
    config.compile(protos, includes)?;
    // prost does not document the modules of packages.
    let modules = fs::read_to_string(out.join("mod.rs"))?;
    fs::write(out.join("mod.rs"), modules.replace("pub mod ", "/// A package.\npub mod "))?;
    Ok(())
}
