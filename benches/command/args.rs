//! The command line.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum, value_parser};

use crate::BenchError;
use crate::compress::Compress;
use crate::place::{BusArgument, Place};
use crate::scale::Scale;
use crate::soak::Soak;
use crate::work::Work;

/// Measures the cost of calls. For each cell (bus, work, concurrency, threads) it prints the calls
/// per second, the latency, the CPU time and allocations of this process per call, and the errors.
/// Client and server run in this process, on one runtime, each with its own connections.
///
/// For comparison it also measures a floor: the same hops with messages of the same size, without
/// the protocol. Floor and calls alternate every 50 ms, so that noise affects both alike. In
/// process the floor uses tokio channels. On Redis and NATS it uses the client library, and, to
/// compare the latency of a single call, blocking sockets.
#[derive(Parser)]
#[command(name = "psrpc-bench", args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) run: Run,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    Soak(Soak),
    Scale(Scale),
    Compress(Compress),
}

#[derive(clap::Args)]
pub(crate) struct Run {
    /// Bus: local, redis, nats, or the URL of a running server. For redis and nats, a server is
    /// started. Repeat for several. Default: all three; local with `--against`.
    #[arg(long)]
    bus: Vec<BusArgument>,
    /// Kinds of work, separated by commas. Default: all; queue and affinity (the claimed calls)
    /// with `--against`.
    #[arg(long, value_delimiter = ',')]
    work: Vec<Work>,
    /// Numbers of concurrent calls, separated by commas. Default: 1, 16 and 128; 16 with
    /// `--against`.
    #[arg(long, value_delimiter = ',', value_parser = value_parser!(u16).range(1..=4096))]
    concurrency: Vec<u16>,
    /// Payload size in bytes.
    #[arg(long, default_value_t = 64, value_parser = size)]
    pub(crate) size: usize,
    /// Seconds to measure each cell, including its floors. Default: 3; 0.2 for each build and round
    /// with `--against`.
    #[arg(long, value_parser = seconds)]
    seconds: Option<f64>,
    /// Number of runs; prints medians at the end. Default: 1; 41 rounds with `--against`.
    #[arg(long, value_parser = value_parser!(u16).range(1..=1000))]
    runs: Option<u16>,
    /// Numbers of tokio worker threads, separated by commas; 1 uses the current-thread runtime.
    /// Default: 2; 1 and 2 with `--against`.
    #[arg(long, value_delimiter = ',', value_parser = value_parser!(u16).range(1..=64))]
    threads: Vec<u16>,
    /// Compare this build with another build of psrpc-bench. Each round runs both builds on a cell,
    /// one after the other, in separate processes and without floors. Prints the CPU time per call
    /// and the calls per second of both, and the ratio of this build to the other.
    #[arg(long, value_name = "BINARY", conflicts_with = "plot")]
    against: Option<PathBuf>,
    /// Skip the floors, for profiling.
    #[arg(long)]
    pub(crate) no_floor: bool,
    /// Print a JSON summary in the last line.
    #[arg(long)]
    pub(crate) json: bool,
    /// Write a chart to this file.
    #[arg(long, value_name = "FILE.svg")]
    pub(crate) plot: Option<PathBuf>,
}

/// A cell to measure: a kind of work at a concurrency, on a bus, with a number of threads.
pub(crate) struct CellSpec<'a, B> {
    /// `None` for the engine, which uses no bus.
    pub(crate) bus: Option<&'a B>,
    pub(crate) work: Work,
    pub(crate) concurrency: usize,
    pub(crate) threads: usize,
}

impl CellSpec<'_, BusArgument> {
    pub(crate) fn bus_name(&self) -> &'static str {
        self.bus.map_or("none", |bus| bus.kind().name())
    }
}

impl fmt::Display for CellSpec<'_, BusArgument> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { work, concurrency, threads, .. } = self;
        write!(f, "{} {} c={concurrency} threads={threads}", self.bus_name(), work.name())
    }
}

static ALL_BUSES: [BusArgument; 3] = [BusArgument::Local, BusArgument::Redis, BusArgument::Nats];

/// The default number of rounds of `--against`. The median of many short rounds is steadier than
/// that of a few long ones: other load on the machine lasts longer than a short round, so it slows
/// both builds alike.
const ROUNDS: u16 = 41;

/// The default time for each build in a round of `--against`, in seconds.
const ROUND_SECONDS: f64 = 0.2;

impl Run {
    /// Opens the buses and starts their servers.
    pub(crate) fn open(&self) -> Result<Vec<Place>, BenchError> {
        if self.work().iter().all(|work| *work == Work::Engine) {
            return Ok(Vec::new());
        }
        self.buses().iter().map(Place::open).collect()
    }

    /// Returns the cells on these buses, in the order in which they are measured.
    pub(crate) fn cells<'a, B>(&self, buses: &'a [B]) -> Vec<CellSpec<'a, B>> {
        let mut cells = Vec::new();
        for threads in self.threads() {
            for bus in buses {
                for work in self.work().iter().copied().filter(|work| *work != Work::Engine) {
                    for concurrency in self.concurrency() {
                        cells.push(CellSpec { bus: Some(bus), work, concurrency, threads });
                    }
                }
            }
        }
        // The engine has one cell, since a pair makes one call at a time.
        if self.work().contains(&Work::Engine) {
            cells.push(CellSpec { bus: None, work: Work::Engine, concurrency: 1, threads: 1 });
        }
        cells
    }

    /// Returns the build to compare with.
    pub(crate) fn against(&self) -> Option<&Path> {
        self.against.as_deref()
    }

    pub(crate) fn buses(&self) -> &[BusArgument] {
        self.or_default(&self.bus, &ALL_BUSES, &ALL_BUSES[..1])
    }

    fn work(&self) -> &[Work] {
        self.or_default(&self.work, Work::value_variants(), &[Work::Queue, Work::Affinity])
    }

    fn concurrency(&self) -> impl Iterator<Item = usize> {
        self.or_default(&self.concurrency, &[1, 16, 128], &[16]).iter().copied().map(usize::from)
    }

    fn threads(&self) -> impl Iterator<Item = usize> {
        self.or_default(&self.threads, &[2], &[1, 2]).iter().copied().map(usize::from)
    }

    pub(crate) fn runs(&self) -> usize {
        usize::from(self.runs.unwrap_or(if self.against.is_some() { ROUNDS } else { 1 }))
    }

    pub(crate) fn seconds(&self) -> Duration {
        Duration::from_secs_f64(self.seconds.unwrap_or(if self.against.is_some() {
            ROUND_SECONDS
        } else {
            3.0
        }))
    }

    /// Returns the values of an option, or its default, which differs with `--against`.
    fn or_default<'a, T>(&self, given: &'a [T], default: &'a [T], against: &'a [T]) -> &'a [T] {
        match given {
            [] if self.against.is_some() => against,
            [] => default,
            given => given,
        }
    }
}

/// NATS rejects larger payloads by default.
const LARGEST: usize = 1_000_000;

fn size(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(size) if size <= LARGEST => Ok(size),
        _ => Err(format!("expected a number of bytes up to {LARGEST}")),
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if seconds > 0.0 && seconds <= 3600.0 => Ok(seconds),
        _ => Err("expected a number above 0, up to 3600".to_owned()),
    }
}
