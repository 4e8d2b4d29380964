//! Plants the defects of tests/simulation/defects.txt in a copy of the tree, and runs the simulator
//! there.
//!
//! ```text
//! cargo run -p psrpc-planted                        # plants each, and checks that it is caught
//! cargo run -p psrpc-planted -- planted --markdown  # prints the table of docs/testing.md
//! cargo run -p psrpc-planted -- replay 8 --planted unselected_responses --shrink
//! cargo run -p psrpc-planted -- --check             # checks that all changes apply
//! cargo run -p psrpc-planted -- --test              # runs the simulator's tests of defects
//! ```
//!
//! The copy contains every defect at once, each behind a condition `planted!(Name)`. The condition
//! asks the module `planted` of the copy's psrpc-engine (`switch.rs`) whether the simulator has
//! planted that defect.

mod copy;
mod defects;

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use clap::Parser;

use defects::Defects;

/// The path in the copy and the text of the module that switches defects.
const SWITCH: (&str, &str) = ("psrpc-engine/src/planted.rs", include_str!("../switch.rs"));

/// The flag that enables the parts of psrpc-simulation that need the module.
const CFG: &str = "--cfg psrpc_planted";

/// Plants defects in a copy of the tree, and runs a command of psrpc-simulation there.
#[derive(Parser)]
#[command(name = "psrpc-planted")]
struct Arguments {
    /// Checks that each change can be made, without building anything.
    #[arg(long)]
    check: bool,
    /// Runs the simulator's tests that plant defects.
    #[arg(long, conflicts_with = "check")]
    test: bool,
    /// The command of psrpc-simulation and its arguments.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, default_value = "planted")]
    command: Vec<String>,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<bool, String> {
    let root = root()?;
    let defects = Defects::parse(include_str!("../../defects.txt"))?;
    let mut changed = defects.apply(&root)?;
    if arguments.check {
        println!(
            "{} defects, {} changes in {} files",
            defects.defects.len(),
            defects.changes.len(),
            changed.len()
        );
        return Ok(true);
    }
    let (path, text) = SWITCH;
    changed.insert(path.to_owned(), format!("{text}\n{}", defects.declaration()));
    let target =
        root.join(env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into())).join("planted");
    let tree = target.join("tree");
    copy::update(&root, &tree, &changed)?;
    cargo(&tree, &target.join("build"), arguments)
}

fn root() -> Result<PathBuf, String> {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../.."));
    root.canonicalize().map_err(|error| format!("cannot resolve {}: {error}", root.display()))
}

/// Builds the simulator in the copy and runs it, or its tests.
fn cargo(tree: &Path, build: &Path, arguments: &Arguments) -> Result<bool, String> {
    let flags = env::var("RUSTFLAGS").map_or(CFG.to_owned(), |flags| format!("{flags} {CFG}"));
    let mut command = Command::new("cargo");
    command.current_dir(tree);
    command.env("CARGO_TARGET_DIR", build).env("RUSTFLAGS", flags).env("CARGO_PROFILE_RELEASE_DEBUG", "0");
    if arguments.test {
        command.args(["test", "--release", "--quiet", "--locked", "-p", "psrpc-simulation"]);
        command.args(["--test", "planted", "--test", "shrink"]);
    } else {
        command.args(["run", "--release", "--quiet", "--locked", "-p", "psrpc-simulation", "--"]);
        command.args(&arguments.command);
    }
    let status = command.status().map_err(|error| format!("cannot run cargo: {error}"))?;
    Ok(status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_change_can_be_made_in_the_tree() {
        let defects = Defects::parse(include_str!("../../defects.txt")).unwrap();
        defects.apply(&root().unwrap()).unwrap();
    }
}
