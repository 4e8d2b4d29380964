//! `run`: runs many seeds and prints a summary.

use std::io::{self, IsTerminal, Write};
use std::num::NonZeroUsize;
use std::thread;
use std::time::{Duration, Instant};

use clap::value_parser;
use psrpc_simulation::{Summary, run_seeds};
use serde_json::{Map, Value, json};

use super::{hex, show_failure, show_shrunk, silence_panics};

/// The number of failed seeds whose shrunk trace is printed.
const SHRUNK_SEEDS: usize = 3;

/// The interval between updates of the progress bar.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

/// The width of the progress bar.
const BAR_WIDTH: u64 = 24;

/// Run many seeds.
#[derive(clap::Args)]
pub(crate) struct Run {
    /// The number of seeds.
    #[arg(long, value_parser = value_parser!(u64).range(1..))]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// The number of threads; by default the number of cores. The results do not depend on it.
    #[arg(long)]
    threads: Option<NonZeroUsize>,
    /// Fail if any kind of fault happens fewer times than this. The default is 1 for a thousand
    /// seeds or more, and 0 below.
    #[arg(long)]
    each_fault: Option<u64>,
    /// Print a summary as JSON on the last line.
    #[arg(long)]
    json: bool,
}

impl Run {
    pub(crate) fn run(&self) -> bool {
        let mut summary = Summary::new();
        let mut progress = Progress::new(self.seeds);
        let threads = self.threads.map_or_else(cores, NonZeroUsize::get);
        let busy = run_seeds(self.first, self.seeds, threads, |report| {
            summary.add(report);
            if let Some(violation) = &report.violation {
                progress.clear();
                show_failure(report.seed, violation);
                println!("  cargo run --release -p psrpc-simulation -- replay {} --shrink", report.seed);
            }
            progress.show(&summary);
        });
        progress.clear();
        let calls_per_s = (summary.calls as f64 / busy.as_secs_f64()) as u64;
        show(&summary, threads, calls_per_s);
        silence_panics();
        for seed in summary.failed.iter().take(SHRUNK_SEEDS) {
            show_shrunk(*seed);
        }
        let enough = self.each_fault.unwrap_or(u64::from(self.seeds >= 1000));
        let too_rare = summary.rarer_than(enough);
        for (fault, count) in &too_rare {
            println!("FAILED: {} happened {count} times, fewer than {enough}", fault.name());
        }
        if self.json {
            println!("{}", as_json(&summary, calls_per_s));
        }
        summary.failed.is_empty() && too_rare.is_empty()
    }
}

fn cores() -> usize {
    thread::available_parallelism().map_or(1, NonZeroUsize::get)
}

fn as_json(summary: &Summary, calls_per_s: u64) -> Value {
    let faults = summary.faults.iter().map(|(fault, count)| (fault.name().to_owned(), count.into()));
    json!({
        "seeds": summary.seeds,
        "failed": summary.failed.len(),
        "calls": summary.calls,
        "calls_per_s": calls_per_s,
        "faults": faults.collect::<Map<_, Value>>(),
        "trace_hash": hex(summary.trace_hash),
    })
}

fn show(summary: &Summary, threads: usize, calls_per_s: u64) {
    let Summary { seeds, failed, calls, fresh_calls, outcomes, faults, trace_hash } = summary;
    println!(
        "{seeds} seeds, {} failed; {calls} calls, {calls_per_s} a second on each of {threads} threads",
        failed.len()
    );
    println!("{fresh_calls} of the calls were made after the faults had stopped");
    println!("outcomes:");
    for (outcome, count) in outcomes {
        println!("{count:>10} {outcome}");
    }
    println!("faults:");
    for (fault, count) in faults.iter() {
        println!("{count:>10} {}", fault.name());
    }
    println!("trace {}", hex(*trace_hash));
}

/// The progress bar, shown if standard error is a terminal.
struct Progress {
    seeds: u64,
    is_terminal: bool,
    started: Instant,
    updated: Instant,
}

#[expect(clippy::disallowed_methods, reason = "the elapsed time is only shown")]
impl Progress {
    fn new(seeds: u64) -> Self {
        let now = Instant::now();
        Self { seeds, is_terminal: io::stderr().is_terminal(), started: now, updated: now }
    }

    fn show(&mut self, summary: &Summary) {
        if !self.is_terminal || self.updated.elapsed() < PROGRESS_INTERVAL {
            return;
        }
        self.updated = Instant::now();
        let Summary { seeds, failed, calls, faults, .. } = summary;
        let filled = "#".repeat((BAR_WIDTH * seeds / self.seeds) as usize);
        let rate = (*calls as f64 / self.started.elapsed().as_secs_f64()) as u64;
        let happened = faults.iter().map(|(_, count)| count).sum::<u64>();
        eprint!(
            "\r[{filled:.<width$}] {seeds} of {} seeds, {rate} calls/s, {} failed, {happened} faults\x1b[K",
            self.seeds,
            failed.len(),
            width = BAR_WIDTH as usize,
        );
        // A progress bar that cannot be shown does not matter.
        let _ = io::stderr().flush();
    }

    fn clear(&self) {
        if self.is_terminal {
            eprint!("\r\x1b[K");
        }
    }
}
