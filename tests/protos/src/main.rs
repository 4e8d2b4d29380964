//! Generates services for .proto files from package registries, and compiles them.

#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use clap::Parser;
use psrpc_protos::Error;
use psrpc_protos::corpus::{self, Depth};

/// Generates code for .proto files from package registries and compiles it with warnings denied.
/// Each file gets a PSRPC service that uses all of its messages. Prints how many files passed, and
/// why the others were rejected.
#[derive(Parser)]
#[command(name = "psrpc-protos")]
struct Arguments {
    /// Stop after this many seconds. Starts with a different group of files each day.
    #[arg(long)]
    seconds: Option<u64>,
    /// Only use sources whose name contains this text.
    #[arg(long)]
    source: Option<String>,
    /// Also build the documentation.
    #[arg(long)]
    docs: bool,
    /// Generate code without compiling it.
    #[arg(long, conflicts_with = "docs")]
    generate: bool,
    /// Megabytes of code to compile at once.
    #[arg(long, default_value_t = 4)]
    megabytes: u64,
}

fn main() -> ExitCode {
    match start(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn start(arguments: &Arguments) -> Result<bool, Error> {
    let cache = psrpc_protos::work_directory().join("sources");
    let (mut groups, skipped) = corpus::groups(&cache, arguments.source.as_deref())?;
    if groups.is_empty() {
        println!("no source can be fetched: {}", skipped.join("; "));
        return Ok(true);
    }
    if arguments.seconds.is_some() {
        let day = SystemTime::UNIX_EPOCH.elapsed()?.as_secs() / 86_400;
        // Far from the previous day's start, since neighbouring groups are similar.
        let start = usize::try_from(day)? * 7_919 % groups.len();
        groups.rotate_left(start);
        // Existing PSRPC services are checked every day.
        groups.sort_by_key(|group| !group.has_services());
        println!("starting at group {start} of {}", groups.len());
    }
    let time = arguments.seconds.map(Duration::from_secs);
    let depth = match (arguments.generate, arguments.docs) {
        (true, _) => Depth::Generate,
        (false, true) => Depth::Document,
        (false, false) => Depth::Check,
    };
    let source = arguments.source.as_deref().unwrap_or("all").replace(['/', '@'], "_");
    let name = format!("corpus-{source}");
    let mut report = corpus::run(&name, &groups, time, arguments.megabytes * 1_000_000, depth)?;
    report.skip(skipped);
    print!("{report}");
    Ok(report.is_success())
}
