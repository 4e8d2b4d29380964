//! What can be asked for on the command line.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum, value_parser};

use crate::BenchError;
use crate::compress::Compress;
use crate::place::{Asked, Place};
use crate::scale::Scale;
use crate::soak::Soak;
use crate::work::Work;

/// Measures what calls cost: for each cell of bus, work and concurrency how many there are a
/// second, how long they take, what CPU time and how many allocations of this process they take,
/// and how many failed; client and server are both in this process, on one runtime, each with
/// connections of its own.
///
/// Beside it, in turns of 50 ms, so that noise hits both alike, runs the floor: the same hops, with
/// messages of the same size, without the protocol. In process they go over tokio channels. On
/// Redis and NATS they are made by the bare client library, and by bare blocking sockets, one after
/// the other: with those the latency of a single call is compared.
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
    /// local, redis or nats, whose servers are started, or the URL of one that runs; several by
    /// several `--bus`. Default: all three; local with `--against`.
    #[arg(long)]
    bus: Vec<Asked>,
    /// What is done, with commas. Default: everything; queue and affinity, the claimed calls, with
    /// `--against`.
    #[arg(long, value_delimiter = ',')]
    work: Vec<Work>,
    /// How many are under way at a time, with commas. Default: 1, 16 and 128; 16 with `--against`.
    #[arg(long, value_delimiter = ',', value_parser = value_parser!(u16).range(1..=4096))]
    concurrency: Vec<u16>,
    /// Bytes of a message's payload.
    #[arg(long, default_value_t = 64, value_parser = size)]
    pub(crate) size: usize,
    /// How long each cell is measured, its floors included. Default: 3; with `--against` 0.2 in
    /// each round, for each build.
    #[arg(long, value_parser = seconds)]
    seconds: Option<f64>,
    /// Measure everything so often, and print the medians in the end. Default: 1; 41 rounds with
    /// `--against`.
    #[arg(long, value_parser = value_parser!(u16).range(1..=1000))]
    runs: Option<u16>,
    /// On a tokio with so many worker threads, with commas; 1 is one that runs on the current
    /// thread. Default: 2; 1 and 2 with `--against`.
    #[arg(long, value_delimiter = ',', value_parser = value_parser!(u16).range(1..=64))]
    threads: Vec<u16>,
    /// Compare this build with another build of psrpc-bench. In each round this command runs both
    /// builds on a cell, one after the other, each in a process of its own and without floors.
    /// It prints the CPU time of a call and the calls a second of both, and the ratio of this
    /// build to the other one.
    #[arg(long, value_name = "BINARY", conflicts_with = "plot")]
    against: Option<PathBuf>,
    /// Leave out the floors, for a profiler.
    #[arg(long)]
    pub(crate) no_floor: bool,
    /// Sum up as JSON in the last line.
    #[arg(long)]
    pub(crate) json: bool,
    /// Draw a chart into this file.
    #[arg(long, value_name = "FILE.svg")]
    pub(crate) plot: Option<PathBuf>,
}

/// A cell to measure: one work at one concurrency on one bus and one number of threads.
pub(crate) struct CellSpec<'a, B> {
    /// None for the engine, which has no bus.
    pub(crate) bus: Option<&'a B>,
    pub(crate) work: Work,
    pub(crate) concurrency: usize,
    pub(crate) threads: usize,
}

impl CellSpec<'_, Asked> {
    pub(crate) fn bus_name(&self) -> &'static str {
        self.bus.map_or("none", |bus| bus.kind().name())
    }
}

impl fmt::Display for CellSpec<'_, Asked> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { work, concurrency, threads, .. } = self;
        write!(f, "{} {} c={concurrency} threads={threads}", self.bus_name(), work.name())
    }
}

static ALL_BUSES: [Asked; 3] = [Asked::Local, Asked::Redis, Asked::Nats];

/// The default number of rounds of `--against`. The median of many short rounds is steadier than
/// that of a few long ones: other load on the machine lasts longer than a short round, so it slows
/// both builds alike.
const ROUNDS: u16 = 41;

/// The default time for each build in a round of `--against`, in seconds.
const ROUND_SECONDS: f64 = 0.2;

impl Run {
    /// The buses, each with its server.
    pub(crate) fn open(&self) -> Result<Vec<Place>, BenchError> {
        if self.work().iter().all(|work| *work == Work::Engine) {
            return Ok(Vec::new());
        }
        self.buses().iter().map(Place::open).collect()
    }

    /// The cells on these buses, in the order in which they are measured.
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
        // The engine has one cell: a pair makes one call after the other.
        if self.work().contains(&Work::Engine) {
            cells.push(CellSpec { bus: None, work: Work::Engine, concurrency: 1, threads: 1 });
        }
        cells
    }

    /// The other build that this one is compared with.
    pub(crate) fn against(&self) -> Option<&Path> {
        self.against.as_deref()
    }

    pub(crate) fn buses(&self) -> &[Asked] {
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

    /// Returns the values of an option if there are any, or else its default, which differs with
    /// `--against`.
    fn or_default<'a, T>(&self, given: &'a [T], default: &'a [T], against: &'a [T]) -> &'a [T] {
        match given {
            [] if self.against.is_some() => against,
            [] => default,
            given => given,
        }
    }
}

/// More does not fit into what NATS takes by default.
const LARGEST: usize = 1_000_000;

fn size(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(size) if size <= LARGEST => Ok(size),
        _ => Err(format!("it is a number of bytes, up to {LARGEST}")),
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if seconds > 0.0 && seconds <= 3600.0 => Ok(seconds),
        _ => Err("it is a number above 0, up to 3600".to_owned()),
    }
}
