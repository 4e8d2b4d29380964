//! Generates services for the .proto files of packages of the registries, and compiles them.

#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use clap::Parser;
use psrpc_protos::Error;
use psrpc_protos::corpus::{self, Depth};

/// Gives every .proto of some packages a PSRPC service that uses each of its messages, generates
/// code, and compiles it with all warnings denied. Prints how many files passed, and why the others
/// were refused.
#[derive(Parser)]
#[command(name = "psrpc-protos")]
struct Arguments {
    /// Takes only as many groups of files as fit into this time, in seconds, from another one on
    /// each day.
    #[arg(long)]
    seconds: Option<u64>,
    /// Takes only the sources whose name contains this.
    #[arg(long)]
    source: Option<String>,
    /// Has rustdoc read the code too.
    #[arg(long)]
    docs: bool,
    /// Generates code, and compiles nothing.
    #[arg(long, conflicts_with = "docs")]
    generate: bool,
    /// How many megabytes of code are compiled at once.
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
        println!("no source can be fetched here: {}", skipped.join("; "));
        return Ok(true);
    }
    if arguments.seconds.is_some() {
        let day = SystemTime::UNIX_EPOCH.elapsed()?.as_secs() / 86_400;
        // Far from that of the day before, since neighbours are alike.
        let start = usize::try_from(day)? * 7_919 % groups.len();
        groups.rotate_left(start);
        // PSRPC services that others have written are worth it every day.
        groups.sort_by_key(|group| !group.has_services());
        println!("from group {start} of {}", groups.len());
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
    Ok(report.is_fine())
}
