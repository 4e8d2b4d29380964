//! The command line of the suite: `list` and `run`.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use clap::builder::RangedU64ValueParser;
use clap::{Parser, Subcommand, ValueEnum};
use psrpc_bus_local::LocalBus;
use psrpc_conformance::runtime::{Host, Smol, Solo, Tokio};
use psrpc_conformance::{Case, Subject, bus, cases, run};

/// Tests a PSRPC bus or runtime.
#[derive(Parser)]
#[command(name = "psrpc-conformance")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Lists the cases: id, invariant or section of the protocol, description.
    List {
        /// Only list cases whose id contains this text.
        #[arg(default_value = "")]
        filter: String,
    },
    /// Runs the cases. Exits with an error if one fails.
    Run {
        /// Only run cases whose id contains this text.
        #[arg(default_value = "")]
        filter: String,
        /// URL of the bus: `local:`, `redis://host:port` or `nats://host:port`.
        #[arg(long, default_value = "local:")]
        bus: String,
        /// Runtime to run the cases on.
        #[arg(long, default_value = "tokio")]
        runtime: RuntimeName,
        /// Number of calls of each kind in load cases, spread over eight clients.
        #[arg(long, default_value_t = 2000, value_parser = RangedU64ValueParser::<usize>::new().range(8..))]
        calls: usize,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum RuntimeName {
    /// Tokio with two worker threads.
    Tokio,
    /// Tokio on one thread.
    TokioCurrentThread,
    /// Smol's global executor.
    Smol,
    /// async-std's global executor.
    #[cfg(feature = "async-std")]
    AsyncStd,
    /// The suite's own executor: one thread, virtual time.
    Solo,
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::List { filter } => list(&filter),
        Command::Run { bus, runtime: RuntimeName::Solo, .. } if LocalBus::from_url(&bus).is_err() => {
            eprintln!("--runtime solo: virtual time works only with --bus local:");
            ExitCode::FAILURE
        }
        Command::Run { filter, bus, runtime, calls } => {
            let subject = subject(&bus, runtime, calls);
            match check_connection(&subject) {
                Ok(()) => run_all(&filter, &subject),
                Err(error) => {
                    eprintln!("--bus: {error}");
                    ExitCode::FAILURE
                }
            }
        }
    }
}

fn matching_cases(filter: &str) -> Vec<&'static Case> {
    cases().into_iter().filter(|case| case.id.contains(filter)).collect()
}

fn list(filter: &str) -> ExitCode {
    let cases = matching_cases(filter);
    for Case { id, stands_for, about, .. } in &cases {
        println!("{id:<40} {stands_for:<20} {about}");
    }
    println!("{} cases", cases.len());
    ExitCode::SUCCESS
}

fn subject(url: &str, runtime: RuntimeName, calls: usize) -> Subject {
    let host: Arc<dyn Host> = match runtime {
        RuntimeName::Tokio => Arc::new(Tokio::multi_thread(2)),
        RuntimeName::TokioCurrentThread => Arc::new(Tokio::current_thread()),
        RuntimeName::Smol => Arc::new(Smol),
        #[cfg(feature = "async-std")]
        RuntimeName::AsyncStd => Arc::new(psrpc_conformance::runtime::AsyncStd),
        RuntimeName::Solo => Arc::new(Solo::new()),
    };
    Subject { bus: bus(url, host.runtime()), host, calls }
}

/// Connects once, so that an unreachable bus is reported once instead of by every case.
fn check_connection(subject: &Subject) -> Result<(), String> {
    let mut result = Ok(());
    let connect = (subject.bus)();
    subject.host.block_on(Box::pin(async { result = connect().await.map(|_| ()) }));
    result
}

fn run_all(filter: &str, subject: &Subject) -> ExitCode {
    // The verdict contains the panic's message.
    std::panic::set_hook(Box::new(|_| {}));
    #[expect(clippy::disallowed_methods, reason = "only printed")]
    let start = Instant::now();
    let (mut passed, mut failed) = (0, 0);
    for case in matching_cases(filter) {
        match run(case, subject) {
            Ok(()) => passed += 1,
            Err(problem) => {
                failed += 1;
                println!("FAILED {} ({}): {}\n       {problem}", case.id, case.stands_for, case.about);
            }
        }
    }
    println!("conformance: {passed} passed, {failed} failed, {:.1} s", start.elapsed().as_secs_f64());
    if failed == 0 && passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
