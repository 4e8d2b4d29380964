//! Shows for each row of docs/features.md that its test fails without the row's code.

use std::path::Path;
use std::process::ExitCode;

use clap::Parser;

mod document;
mod mutation;
mod trial;

use mutation::Mutation;
use trial::Trials;

/// Disables the code of each row of docs/features.md in a copy of the tree, and demands that the
/// row's test fails.
#[derive(Parser)]
#[command(name = "psrpc-features")]
struct Arguments {
    /// The rows, as `G1`; all if there are none.
    rows: Vec<String>,
    /// Lists what would be changed and run.
    #[arg(long)]
    list: bool,
    /// Checks without building anything that each row has a mutation that can be made, and that
    /// what it names is there.
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
    let wanted = |mutation: &&Mutation| arguments.rows.is_empty() || arguments.rows.contains(&mutation.row);
    let chosen: Vec<_> = mutations.iter().filter(wanted).collect();
    if chosen.is_empty() {
        return Err("there are no such rows".to_owned());
    }
    if arguments.list {
        for mutation in &chosen {
            println!("{:<4} {:<44} {}", mutation.row, mutation.change.file, mutation.shown());
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
    let mut shown = 0;
    for mutation in &chosen {
        let verdict = match trials.shows(mutation) {
            Ok(()) => {
                shown += 1;
                "fails without it".to_owned()
            }
            Err(why) => format!("NOT SHOWN: {why}"),
        };
        println!("{:<4} {:<90} {verdict}", mutation.row, mutation.test());
    }
    println!("{shown} of {} shown", chosen.len());
    Ok(shown == chosen.len())
}
