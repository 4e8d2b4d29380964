//! Compares the counts of `benches/cost/benches/cost.rs` with `benches/cost/limits.txt`.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;

mod count;
mod limits;
mod verdict;

use count::count;
use limits::Limits;
use verdict::Verdict;

/// Counts the cost of each bench in benches/cost/benches/cost.rs, and compares it with the limits
/// in benches/cost/limits.txt.
///
/// Exits with 77, and prints the reason, if no comparison is possible.
#[derive(Parser)]
#[command(name = "limits")]
struct Arguments {
    /// Update the limits to the counts of this compiler.
    #[arg(long)]
    update: bool,
}

/// The reason that there is no verdict.
enum Stop {
    /// The machine or the compiler does not support it.
    Skipped(String),
    Failed(String),
}

impl From<String> for Stop {
    fn from(reason: String) -> Self {
        Stop::Failed(reason)
    }
}

fn main() -> ExitCode {
    match start(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(Stop::Skipped(reason)) => {
            println!("{reason}");
            ExitCode::from(77)
        }
        Err(Stop::Failed(reason)) => {
            eprintln!("{reason}");
            ExitCode::FAILURE
        }
    }
}

fn start(arguments: &Arguments) -> Result<bool, Stop> {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).canonicalize();
    let root = root.map_err(|error| error.to_string())?;
    let file = root.join("benches/cost/limits.txt");
    let text = fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
    let limits = Limits::parse(&text)?;
    let compiler = count::compiler(&root)?;
    if compiler != limits.compiler && !arguments.update {
        let Limits { compiler: named, .. } = limits;
        return Err(Stop::Skipped(format!("the limits are for {named}, this is {compiler}")));
    }
    let counted = count(&root)?;
    let verdict = Verdict::new(&limits.costs, &counted);
    println!("{verdict}");
    if arguments.update {
        let limits = Limits { compiler, costs: counted };
        fs::write(&file, limits.to_string()).map_err(|error| error.to_string())?;
        println!("updated {}", file.display());
        return Ok(true);
    }
    Ok(verdict.passed())
}
