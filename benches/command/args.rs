//! What can be asked for on the command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum, value_parser};

use crate::Fault;
use crate::place::{Asked, Place};
use crate::scale::Scale;
use crate::soak::Soak;
use crate::work::Work;

/// Measures what calls cost: for each cell of bus, work and concurrency how many there are a second, how long they take,
/// what CPU time and how many allocations of this process they take, and how many failed; client and server are both in
/// this process, on one runtime, each with connections of its own.
///
/// Beside it, in turns of 50 ms, so that noise hits both alike, runs the floor: the same hops, with messages of the same
/// size, without the protocol. In process they go over tokio channels. On Redis and NATS they are made by the bare client
/// library, and by bare blocking sockets, one after the other: with those the latency of a single call is compared.
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
}

#[derive(clap::Args)]
pub(crate) struct Run {
    /// local, redis or nats, whose servers are started, or the URL of one that runs; several by several `--bus`. Default: all
    /// three.
    #[arg(long)]
    bus: Vec<Asked>,
    /// What is done, with commas. Default: everything.
    #[arg(long, value_delimiter = ',')]
    work: Vec<Work>,
    /// How many are under way at a time, with commas.
    #[arg(long, value_delimiter = ',', default_value = "1,16,128", value_parser = value_parser!(u16).range(1..=4096))]
    concurrency: Vec<u16>,
    /// Bytes of a message's payload.
    #[arg(long, default_value_t = 64, value_parser = size)]
    pub(crate) size: usize,
    /// How long each cell is measured, its floors included.
    #[arg(long, default_value_t = 3.0, value_parser = seconds)]
    seconds: f64,
    /// Measure everything so often, and print the medians in the end.
    #[arg(long, default_value_t = 1, value_parser = value_parser!(u16).range(1..=1000))]
    runs: u16,
    /// On a tokio with so many worker threads, with commas; 1 is one that runs on the current thread.
    #[arg(long, value_delimiter = ',', default_value = "2", value_parser = value_parser!(u16).range(1..=64))]
    threads: Vec<u16>,
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

impl Run {
    /// The buses, each with its server.
    pub(crate) fn open(&self) -> Result<Vec<Place>, Fault> {
        if self.work().all(|work| work == Work::Engine) {
            return Ok(Vec::new());
        }
        let all = [Asked::Local, Asked::Redis, Asked::Nats];
        let asked = if self.bus.is_empty() { &all[..] } else { &self.bus };
        asked.iter().map(Place::open).collect()
    }

    pub(crate) fn work(&self) -> impl Iterator<Item = Work> {
        let all = if self.work.is_empty() { Work::value_variants() } else { &self.work };
        all.iter().copied()
    }

    pub(crate) fn concurrency(&self) -> impl Iterator<Item = usize> {
        self.concurrency.iter().copied().map(usize::from)
    }

    pub(crate) fn threads(&self) -> impl Iterator<Item = usize> {
        self.threads.iter().copied().map(usize::from)
    }

    pub(crate) fn runs(&self) -> usize {
        usize::from(self.runs)
    }

    pub(crate) fn seconds(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
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
