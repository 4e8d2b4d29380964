//! Compares the public API of every crate with the reviewed text in `snapshots/`, one item per
//! line.

#![forbid(unsafe_code)]

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::{env, fs};

use clap::Parser;

/// The crates that users depend on.
const CRATES: [&str; 12] = [
    "psrpc-proto",
    "psrpc-engine",
    "psrpc",
    "psrpc-testing",
    "psrpc-tokio",
    "psrpc-smol",
    "psrpc-bus-local",
    "psrpc-bus-redis",
    "psrpc-bus-nats",
    "psrpc-bus-net",
    "psrpc-bus-url",
    "psrpc-build",
];

/// The version of rustdoc's JSON format that `public-api` reads. Other compilers write other
/// versions.
const FORMAT: u64 = 57;

/// Compares the public API of every crate with its reviewed snapshot.
#[derive(Parser)]
struct Arguments {
    /// Update the snapshots instead, for review.
    #[arg(long)]
    update: bool,
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let Arguments { update } = Arguments::parse();
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut changed = false;
    for name in CRATES {
        let json = rustdoc(name)?;
        let written = serde_json::from_slice::<serde_json::Value>(&fs::read(&json)?)?;
        if written["format_version"] != FORMAT {
            println!("skipped: this compiler does not write version {FORMAT} of the rustdoc JSON format");
            return Ok(ExitCode::SUCCESS);
        }
        let api = public_api::Builder::from_rustdoc_json(json)
            .omit_blanket_impls(true)
            .omit_auto_trait_impls(true)
            .omit_auto_derived_impls(true)
            .build()?;
        let now: String = api.items().map(|item| format!("{item}\n")).collect();
        let snapshot = directory.join(format!("snapshots/{name}.txt"));
        let reviewed = fs::read_to_string(&snapshot).unwrap_or_default();
        if update {
            fs::write(&snapshot, &now)?;
        }
        changed |= print_difference(name, &reviewed, &now);
    }
    if changed && !update {
        println!(
            "if these changes are intended, run `cargo run -p psrpc-api -- --update` and commit the snapshots"
        );
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints the added and removed items. Returns `true` if there are any.
fn print_difference(name: &str, reviewed: &str, now: &str) -> bool {
    let removed = reviewed.lines().filter(|item| !now.lines().any(|known| known == *item));
    let added = now.lines().filter(|item| !reviewed.lines().any(|known| known == *item));
    let difference: Vec<_> =
        removed.map(|item| format!("- {item}")).chain(added.map(|item| format!("+ {item}"))).collect();
    if !difference.is_empty() {
        println!("{name}:\n{}", difference.join("\n"));
    }
    !difference.is_empty()
}

/// Writes the documentation of a crate as JSON, an unstable feature of rustdoc, and returns its
/// path.
fn rustdoc(name: &str) -> Result<PathBuf, Box<dyn Error>> {
    let root = env::current_dir()?;
    let target = root.join(env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into())).join("api");
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["rustdoc", "--quiet", "--locked", "--lib", "--package", name, "--target-dir"])
        .arg(&target)
        .args(["--", "-Z", "unstable-options", "--output-format", "json", "--cap-lints", "allow"])
        .env("RUSTC_BOOTSTRAP", "1")
        .status()?;
    if !status.success() {
        return Err(format!("cargo rustdoc failed for {name}").into());
    }
    Ok(target.join(format!("doc/{}.json", name.replace('-', "_"))))
}
