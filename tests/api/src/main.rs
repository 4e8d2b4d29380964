//! Compares the public API of every crate with the text in `snapshots/`, one item a line.

#![forbid(unsafe_code)]

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::{env, fs};

use clap::Parser;

/// The crates that users depend on.
const CRATES: [&str; 11] = [
    "psrpc-proto",
    "psrpc-engine",
    "psrpc",
    "psrpc-testing",
    "psrpc-tokio",
    "psrpc-smol",
    "psrpc-bus-local",
    "psrpc-bus-redis",
    "psrpc-bus-nats",
    "psrpc-bus-url",
    "psrpc-build",
];

/// The version of rustdoc's JSON that `public-api` reads; other compilers write others.
const FORMAT: u64 = 57;

/// Compares the public API of every crate with what was reviewed.
#[derive(Parser)]
struct Arguments {
    /// Writes the API down instead, for review.
    #[arg(long)]
    update: bool,
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let Arguments { update } = Arguments::parse();
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut changed = false;
    for name in CRATES {
        let json = rustdoc(name)?;
        let written = serde_json::from_slice::<serde_json::Value>(&fs::read(&json)?)?;
        if written["format_version"] != FORMAT {
            println!("skipped: this compiler does not write version {FORMAT} of rustdoc's JSON");
            return Ok(ExitCode::SUCCESS);
        }
        let api = public_api::Builder::from_rustdoc_json(json)
            .omit_blanket_impls(true)
            .omit_auto_trait_impls(true)
            .omit_auto_derived_impls(true)
            .build()?;
        let now: String = api.items().map(|item| format!("{item}\n")).collect();
        let snapshot = here.join(format!("snapshots/{name}.txt"));
        let reviewed = fs::read_to_string(&snapshot).unwrap_or_default();
        if update {
            fs::write(&snapshot, &now)?;
        }
        changed |= tell_difference(name, &reviewed, &now);
    }
    if changed && !update {
        println!("if that is meant: cargo run -p psrpc-api -- --update, and commit the snapshots");
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints which items came and went; whether any did.
fn tell_difference(name: &str, reviewed: &str, now: &str) -> bool {
    let gone = reviewed.lines().filter(|item| !now.lines().any(|known| known == *item));
    let new = now.lines().filter(|item| !reviewed.lines().any(|known| known == *item));
    let difference: Vec<_> =
        gone.map(|item| format!("- {item}")).chain(new.map(|item| format!("+ {item}"))).collect();
    if !difference.is_empty() {
        println!("{name}:\n{}", difference.join("\n"));
    }
    !difference.is_empty()
}

/// Writes the documentation of a crate as JSON, which is not a stable feature of the compiler.
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
        return Err(format!("{name} cannot be documented").into());
    }
    Ok(target.join(format!("doc/{}.json", name.replace('-', "_"))))
}
