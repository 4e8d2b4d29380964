//! Packages that contain .proto files. They are downloaded on demand with the registry's own
//! client. Versions are pinned, so that runs are reproducible.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Error;

/// A package with .proto files.
#[derive(Clone, Copy, Debug)]
pub struct Source {
    /// The name of the package.
    pub package: &'static str,
    /// The version of the package.
    pub version: &'static str,
    /// The registry of the package.
    pub registry: Registry,
    /// The directories in the package that serve as import roots.
    pub roots: &'static [&'static str],
    /// The path prefix, within a root, of files that already contain PSRPC services.
    pub services: Option<&'static str>,
}

/// A package registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Registry {
    /// PyPI, via `pip`.
    PyPi,
    /// npm, via `npm`.
    Npm,
    /// crates.io, via `cargo`.
    Crates,
    /// The Go module proxy, via `go`.
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

/// All sources, small ones first.
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
    /// Downloads the package below `cache`, unless it exists, and returns its directory.
    ///
    /// # Errors
    ///
    /// Returns an error if the registry's client is not installed or fails.
    pub fn fetch(&self, cache: &Path) -> Result<PathBuf, Error> {
        let client = self.registry.client();
        if Command::new(client).arg("--help").output().is_err() {
            return Err(format!("{client} is not installed").into());
        }
        let Self { package, version, .. } = *self;
        let directory = cache.join(format!("{client}-{}-{version}", package.replace(['/', '@'], "_")));
        fs::create_dir_all(&directory)?;
        match self.registry {
            Registry::PyPi => {
                let requirement = format!("{package}=={version}");
                let done = directory.join("done");
                if !done.exists() {
                    run(
                        &directory,
                        "pip",
                        &["install", "--quiet", "--no-deps", "--target", ".", &requirement],
                    )?;
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
                Ok(manifest.and_then(Path::parent).ok_or("the package is not in the metadata")?.to_owned())
            }
            Registry::Go => {
                let requirement = format!("{package}@{version}");
                let text = run(&directory, "go", &["mod", "download", "-json", &requirement])?;
                let module: serde_json::Value = serde_json::from_str(&text)?;
                Ok(module["Dir"].as_str().ok_or("go mod download printed no directory")?.into())
            }
        }
    }
}

fn run(directory: &Path, program: &str, arguments: &[&str]) -> Result<String, Error> {
    let output = Command::new(program).args(arguments).current_dir(directory).output()?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        let last = stderr.trim().lines().last().unwrap_or_default().to_owned();
        return Err(format!("{program} {} failed: {last}", arguments.join(" ")).into());
    }
    Ok(String::from_utf8(output.stdout)?)
}
