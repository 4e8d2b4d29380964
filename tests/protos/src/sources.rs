//! Sources: packages of the registries that have .proto files in them, fetched by the registries'
//! own clients when they are wanted. Their versions are fixed, so that a run repeats itself.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Error;

/// A package with .proto files.
#[derive(Clone, Copy, Debug)]
pub struct Source {
    /// The package.
    pub package: &'static str,
    /// Its version.
    pub version: &'static str,
    /// The registry.
    pub registry: Registry,
    /// The directories in it that its files import from.
    pub roots: &'static [&'static str],
    /// What the names of the files that are PSRPC services themselves begin with, in a root.
    pub services: Option<&'static str>,
}

/// Where a package is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Registry {
    /// PyPI, by `pip`.
    PyPi,
    /// npm, by `npm`.
    Npm,
    /// crates.io, by `cargo`.
    Crates,
    /// The proxy for Go modules, by `go`.
    Go,
}

const fn source(
    registry: Registry,
    package: &'static str,
    version: &'static str,
    roots: &'static [&'static str],
) -> Source {
    Source { package, version, registry, roots, services: None }
}

/// Every source, the small ones first.
pub const SOURCES: &[Source] = &[
    Source {
        services: Some("rpc/"),
        ..source(Registry::Go, "github.com/livekit/protocol", "v1.54.0", &["protobufs"])
    },
    source(Registry::Crates, "etcd-client", "0.21.1", &["proto"]),
    source(Registry::Crates, "hdfs-native", "0.14.8", &["src/proto/common", "src/proto/hdfs"]),
    source(Registry::Crates, "opentelemetry-proto", "0.33.1", &["src/proto/opentelemetry-proto"]),
    source(Registry::Crates, "osmpbf", "0.3.8", &["src/proto"]),
    source(Registry::Crates, "pulsar", "6.9.1", &["."]),
    source(Registry::Crates, "qdrant-client", "1.20.0", &["proto"]),
    source(
        Registry::Crates,
        "temporal-sdk-core-protos",
        "0.1.0",
        &[
            "protos/api_upstream",
            "protos/local",
            "protos/api_cloud_upstream",
            "protos/testsrv_upstream",
            "protos",
        ],
    ),
    source(Registry::Crates, "tonic-health", "0.14.9", &["proto"]),
    source(Registry::Crates, "tonic-reflection", "0.14.9", &["proto"]),
    source(Registry::PyPi, "googleapis-common-protos", "1.76.0", &["."]),
    source(Registry::PyPi, "onnx", "1.23.2", &["."]),
    source(Registry::Npm, "@dapr/dapr", "3.18.0", &["proto"]),
    source(
        Registry::Npm,
        "@grpc/grpc-js-xds",
        "1.14.1",
        &["deps/envoy-api", "deps/xds", "deps/protoc-gen-validate", "deps/googleapis"],
    ),
    source(Registry::Npm, "google-gax", "5.0.8", &["build/protos"]),
    source(Registry::Npm, "google-proto-files", "5.0.3", &["."]),
];

impl Registry {
    fn client(self) -> &'static str {
        match self {
            Self::PyPi => "pip",
            Self::Npm => "npm",
            Self::Crates => "cargo",
            Self::Go => "go",
        }
    }
}

impl Source {
    /// Fetches the package below `cache`, unless it is there, and returns its directory.
    ///
    /// # Errors
    ///
    /// When the registry's client is not there, or fails.
    pub fn fetch(&self, cache: &Path) -> Result<PathBuf, Error> {
        let client = self.registry.client();
        if Command::new(client).arg("--help").output().is_err() {
            return Err(format!("there is no {client}").into());
        }
        let Self { package, version, .. } = *self;
        let directory = cache.join(format!("{client}-{}-{version}", package.replace(['/', '@'], "_")));
        fs::create_dir_all(&directory)?;
        match self.registry {
            Registry::PyPi => {
                let wanted = format!("{package}=={version}");
                let done = directory.join("done");
                if !done.exists() {
                    run(&directory, "pip", &["install", "--quiet", "--no-deps", "--target", ".", &wanted])?;
                    fs::write(done, "")?;
                }
                Ok(directory)
            }
            Registry::Npm => {
                let unpacked = directory.join("package");
                if !unpacked.exists() {
                    let packed =
                        run(&directory, "npm", &["pack", "--silent", &format!("{package}@{version}")])?;
                    let archive = packed.trim().lines().last().unwrap_or_default().to_owned();
                    run(&directory, "tar", &["-xzf", &archive])?;
                }
                Ok(unpacked)
            }
            Registry::Crates => {
                let manifest = format!(
                    "[package]\nname = \"sources\"\nversion = \"0.0.0\"\nedition = \"2024\"\n[lib]\npath = \"lib.rs\"\n\
                     [workspace]\n[dependencies]\n{package} = {{ version = \"={version}\", default-features = false }}\n"
                );
                fs::write(directory.join("Cargo.toml"), manifest)?;
                fs::write(directory.join("lib.rs"), "")?;
                let text = run(&directory, "cargo", &["metadata", "--quiet", "--format-version", "1"])?;
                let metadata: serde_json::Value = serde_json::from_str(&text)?;
                let packages = metadata["packages"].as_array().ok_or("cargo metadata has no packages")?;
                let found = packages.iter().find(|found| found["name"] == package);
                let manifest = found.and_then(|found| found["manifest_path"].as_str()).map(Path::new);
                Ok(manifest.and_then(Path::parent).ok_or("the package is not among them")?.to_owned())
            }
            Registry::Go => {
                let wanted = format!("{package}@{version}");
                let text = run(&directory, "go", &["mod", "download", "-json", &wanted])?;
                let module: serde_json::Value = serde_json::from_str(&text)?;
                Ok(module["Dir"].as_str().ok_or("go names no directory")?.into())
            }
        }
    }
}

fn run(directory: &Path, program: &str, arguments: &[&str]) -> Result<String, Error> {
    let output = Command::new(program).args(arguments).current_dir(directory).output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let last = said.trim().lines().last().unwrap_or_default().to_owned();
        return Err(format!("{program} {} failed: {last}", arguments.join(" ")).into());
    }
    Ok(String::from_utf8(output.stdout)?)
}
