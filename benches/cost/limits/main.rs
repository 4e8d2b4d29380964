//! Holds the counts of benches/cost.rs to limits.txt.

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

/// Counts what each bench of benches/cost.rs costs, and compares that with benches/cost/limits.txt.
///
/// Exits with 77 where nothing can be compared, and says why.
#[derive(Parser)]
#[command(name = "limits")]
struct Arguments {
    /// Makes what was counted the limits, for the compiler that is used.
    #[arg(long)]
    update: bool,
}

/// Why there is no verdict.
enum Stop {
    /// This machine or compiler is not for it.
    Skipped(String),
    Failed(String),
}

impl From<String> for Stop {
    fn from(why: String) -> Self {
        Stop::Failed(why)
    }
}

fn main() -> ExitCode {
    match start(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(Stop::Skipped(why)) => {
            println!("{why}");
            ExitCode::from(77)
        }
        Err(Stop::Failed(why)) => {
            eprintln!("{why}");
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
        return Err(Stop::Skipped(format!("the limits are for {named}, and this is {compiler}")));
    }
    let counted = count(&root)?;
    let verdict = Verdict::new(&limits.costs, &counted);
    println!("{verdict}");
    if arguments.update {
        let limits = Limits { compiler, costs: counted };
        fs::write(&file, limits.to_string()).map_err(|error| error.to_string())?;
        println!("these are the limits now, in {}", file.display());
        return Ok(true);
    }
    Ok(verdict.holds())
}
