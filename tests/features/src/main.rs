//! Checks that the test of each row in docs/features.md fails without the row's code.

use std::path::Path;
use std::process::ExitCode;

use clap::Parser;

mod document;
mod mutation;
mod trial;

use mutation::Mutation;
use trial::Trials;

/// Disables the code of each row in docs/features.md, in a copy of the tree, and checks that the
/// row's test fails.
#[derive(Parser)]
#[command(name = "psrpc-features")]
struct Arguments {
    /// Rows to check, such as `G1`. Default: all.
    rows: Vec<String>,
    /// List the changes and commands without running them.
    #[arg(long)]
    list: bool,
    /// Check, without building, that each row has a mutation that applies, and that the tests named
    /// in the row exist.
    #[arg(long)]
    check: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match start(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn start(arguments: &Arguments) -> Result<bool, String> {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).canonicalize();
    let root = root.map_err(|error| error.to_string())?;
    let mutations = mutation::parse(include_str!("../mutations.txt"))?;
    let is_selected =
        |mutation: &&Mutation| arguments.rows.is_empty() || arguments.rows.contains(&mutation.row);
    let selected: Vec<_> = mutations.iter().filter(is_selected).collect();
    if selected.is_empty() {
        return Err(format!("no such rows: {}", arguments.rows.join(", ")));
    }
    if arguments.list {
        for mutation in &selected {
            println!("{:<4} {:<44} {}", mutation.row, mutation.change.file, mutation.command_line());
        }
        return Ok(true);
    }
    if arguments.check {
        let rows = document::rows(&root)?;
        let problems = document::problems(&root, &rows, &mutations);
        problems.iter().for_each(|problem| println!("{problem}"));
        println!("{} rows, {} mutations, {} problems", rows.len(), mutations.len(), problems.len());
        return Ok(problems.is_empty());
    }
    let mut trials = Trials::new(&root)?;
    let mut confirmed = 0;
    for mutation in &selected {
        let verdict = match trials.check(mutation) {
            Ok(()) => {
                confirmed += 1;
                "fails without it".to_owned()
            }
            Err(reason) => format!("NOT CONFIRMED: {reason}"),
        };
        println!("{:<4} {:<90} {verdict}", mutation.row, mutation.test());
    }
    println!("{confirmed} of {} mutations confirmed", selected.len());
    Ok(confirmed == selected.len())
}
