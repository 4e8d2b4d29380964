//! A batch: a crate with generated code of many .proto files, each in a module of its own, so that
//! one run of the compiler checks all of them.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use psrpc_build::Config;

use crate::{Error, ROOT, work_directory};

/// What the compiler is told to refuse.
const WARNINGS: &str = "warnings";

/// A crate of generated code.
#[derive(Debug)]
pub struct Batch {
    directory: PathBuf,
    lints: String,
    units: Vec<String>,
}

/// What is wrong with the code of units, by their names: the lines of the compiler.
pub type Faults = BTreeMap<String, Vec<String>>;

impl Batch {
    /// A batch in `NAME` of the [work directory](work_directory), without what an earlier one left
    /// there.
    ///
    /// # Errors
    ///
    /// When a file cannot be written.
    pub fn new(name: &str) -> Result<Self, Error> {
        let directory = work_directory().join(name);
        if directory.exists() {
            fs::remove_dir_all(&directory)?;
        }
        fs::create_dir_all(directory.join("src"))?;
        Ok(Self { directory, lints: WARNINGS.to_owned(), units: Vec::new() })
    }

    /// Refuses these lints too, such as `missing_docs`.
    pub fn deny(&mut self, lint: &str) -> &mut Self {
        self.lints += ", ";
        self.lints += lint;
        self
    }

    /// Adds the code of `protos`, as a module called `name`.
    ///
    /// # Errors
    ///
    /// When they are refused, which is what most of this is about; nothing is added then.
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

    /// How many units there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.units.len()
    }

    /// Whether there is no unit.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.units.is_empty()
    }

    /// How many bytes of code there are.
    ///
    /// # Errors
    ///
    /// When a directory cannot be read.
    pub fn bytes(&self) -> Result<u64, Error> {
        let mut bytes = 0;
        for unit in &self.units {
            for entry in fs::read_dir(self.directory.join("src").join(unit))? {
                bytes += entry?.metadata()?.len();
            }
        }
        Ok(bytes)
    }

    /// Runs cargo on the crate, as `check`, and returns the faults of each unit.
    ///
    /// # Errors
    ///
    /// When cargo fails, and not because of a unit.
    pub fn cargo(&self, arguments: &[&str]) -> Result<Faults, Error> {
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
        let mut faults = Faults::new();
        for line in text.lines() {
            let unit = line.strip_prefix("src/").and_then(|rest| rest.split_once('/'));
            if let Some((unit, _)) = unit.filter(|_| line.contains(": error") || line.contains(": warning")) {
                faults.entry(unit.to_owned()).or_default().push(line.to_owned());
            }
        }
        if !output.status.success() && faults.is_empty() {
            return Err(format!("cargo {arguments:?} in {}: {text}", self.directory.display()).into());
        }
        Ok(faults)
    }

    fn write(&self) -> Result<(), Error> {
        let mut manifest =
            "[package]\nname = \"batch\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n[workspace]\n\n\
                            [profile.dev]\ndebug = false\nincremental = false\n\n[dependencies]\n"
                .to_owned();
        writeln!(manifest, "psrpc = {{ path = \"{ROOT}/psrpc\" }}")?;
        for (name, features) in [("prost", "\"derive\", \"std\""), ("prost-types", "\"std\"")] {
            let version = locked(name)?;
            writeln!(
                manifest,
                "{name} = {{ version = \"={version}\", default-features = false, features = [{features}] }}"
            )?;
        }
        fs::write(self.directory.join("Cargo.toml"), manifest)?;
        // The repository's own rules are not those of a user.
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

/// The version of a package that the repository is tested with.
fn locked(package: &str) -> Result<String, Error> {
    let lock = fs::read_to_string(Path::new(ROOT).join("Cargo.lock"))?;
    let (_, rest) =
        lock.split_once(&format!("name = \"{package}\"\nversion = \"")).ok_or("no such package")?;
    Ok(rest.split('"').next().unwrap_or_default().to_owned())
}

/// Generates the code of `protos` into a directory.
///
/// # Errors
///
/// When they are refused.
pub fn generate(out: &Path, protos: &[PathBuf], includes: &[PathBuf]) -> Result<(), psrpc_build::Error> {
    let mut config = Config::new();
    config.default_runtime(false).out_dir(out);
    config.prost().include_file("mod.rs");
    config.compile(protos, includes)?;
    // prost writes no docs for the modules of packages.
    let modules = fs::read_to_string(out.join("mod.rs"))?;
    fs::write(out.join("mod.rs"), modules.replace("pub mod ", "/// A package.\npub mod "))?;
    Ok(())
}
