//! Compares every text that a user of the product can see with the snapshots in `snapshots/`, one
//! file a crate and one line a text. A changed error or log message is thus reviewed like a change
//! of the API.
//!
//! The texts are read from the source code, token by token. A text is:
//!
//! - the format string of an `#[error]` attribute, of a log macro, of a macro that prints or
//!   panics, and the literal in a call of `expect`;
//! - a literal in a call of `Err`, `ok_or` and the like, or of a type whose name ends in `Error`;
//! - the doc comment of anything that clap turns into help;
//! - any other literal of at least two words. This finds texts that no list of names would, such as
//!   the table of `Reason`, at the price of some literals that only look like texts.
//!
//! Tests, code for fuzzing, other doc comments, and attributes that no user sees are left out.
//! Lines are sorted and have no line numbers, so moving code within a file changes no snapshot.

#![forbid(unsafe_code)]

mod scan;
mod snapshot;
mod source;
mod text;

use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;

/// The crates with texts, each with the folder of its sources.
const CRATES: [(&str, &str); 15] = [
    ("psrpc-proto", "psrpc-proto/src"),
    ("psrpc-engine", "psrpc-engine/src"),
    ("psrpc", "psrpc/src"),
    ("psrpc-testing", "psrpc-testing/src"),
    ("psrpc-tokio", "psrpc-tokio/src"),
    ("psrpc-smol", "psrpc-smol/src"),
    ("psrpc-bus-local", "bus-local/src"),
    ("psrpc-bus-redis", "bus-redis/src"),
    ("psrpc-bus-nats", "bus-nats/src"),
    ("psrpc-bus-net", "bus-net/src"),
    ("psrpc-bus-url", "bus-url/src"),
    ("psrpc-build", "psrpc-build/src"),
    ("psrpc-conformance", "tests/conformance/src"),
    ("psrpc-simulation", "tests/simulation/src"),
    ("psrpc-bench", "benches/command"),
];

/// Compares every text that users see with the reviewed snapshots.
#[derive(Parser)]
struct Arguments {
    /// Writes the snapshots instead, for review.
    #[arg(long)]
    update: bool,
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let Arguments { update } = Arguments::parse();
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = here.join("../..");
    let mut changed = false;
    for (name, folder) in CRATES {
        let current = snapshot::of_crate(&root.join(folder))?;
        let path = here.join(format!("snapshots/{name}.txt"));
        let reviewed = fs::read_to_string(&path).unwrap_or_default();
        if update {
            fs::write(&path, &current)?;
        }
        let difference = snapshot::difference(&reviewed, &current);
        if !difference.is_empty() {
            println!("{name}:\n{}", difference.join("\n"));
            changed = true;
        }
    }
    if changed && !update {
        println!("if that is intended: cargo run -p psrpc-texts -- --update, and commit the snapshots");
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}
