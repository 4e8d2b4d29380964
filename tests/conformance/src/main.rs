//! The command line of the suite: `list` and `run`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::builder::RangedU64ValueParser;
use clap::{Parser, Subcommand, ValueEnum};
use psrpc_bus_local::LocalBus;
use psrpc_bus_url::TlsFiles;
use psrpc_conformance::runtime::{Host, Smol, Solo, Tokio};
use psrpc_conformance::{Case, Subject, bus_with_tls, cases, run};

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
        /// URL of the bus: `local:`, or any URL of psrpc-bus-url, such as `redis://host:port`,
        /// `rediss+sentinel://host:port/name` or `tls://host:port`.
        #[arg(long, default_value = "local:")]
        bus: String,
        #[command(flatten)]
        tls: TlsArguments,
        /// Runtime to run the cases on.
        #[arg(long, default_value = "tokio")]
        runtime: RuntimeName,
        /// Number of calls of each kind in load cases, spread over eight clients.
        #[arg(long, default_value_t = 2000, value_parser = RangedU64ValueParser::<usize>::new().range(8..))]
        calls: usize,
        /// Milliseconds until all servers of the bus know of the start or the end of a
        /// subscription, and have forwarded earlier frames. Set it for a cluster.
        #[arg(long, default_value_t = 0, value_name = "MS", value_parser = clap::value_parser!(u64).range(..=1000))]
        settling_time: u64,
    },
}

/// The PEM files for a URL that asks for TLS.
#[derive(clap::Args)]
struct TlsArguments {
    /// PEM file with the certificates of the authorities to trust. Default: those of the system.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// PEM file with a client certificate.
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// PEM file with the private key of the client certificate.
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
}

impl TlsArguments {
    fn files(self) -> TlsFiles {
        let files = self.ca.into_iter().fold(TlsFiles::new(), TlsFiles::ca);
        match (self.cert, self.key) {
            (Some(certificate), Some(key)) => files.client_certificate(certificate, key),
            _ => files,
        }
    }
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
        Command::Run { filter, bus, tls, runtime, calls, settling_time } => {
            let host = host(runtime);
            let subject = Subject {
                bus: bus_with_tls(&bus, host.runtime(), tls.files()),
                host,
                calls,
                settling_time: Duration::from_millis(settling_time),
            };
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

fn host(runtime: RuntimeName) -> Arc<dyn Host> {
    match runtime {
        RuntimeName::Tokio => Arc::new(Tokio::multi_thread(2)),
        RuntimeName::TokioCurrentThread => Arc::new(Tokio::current_thread()),
        RuntimeName::Smol => Arc::new(Smol),
        #[cfg(feature = "async-std")]
        RuntimeName::AsyncStd => Arc::new(psrpc_conformance::runtime::AsyncStd),
        RuntimeName::Solo => Arc::new(Solo::new()),
    }
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
