//! The command: runs seeds and sums them up, replays one and shows all that happens, or plants defects to be caught.

use std::process::ExitCode;
use std::time::Instant;

use clap::{Parser, Subcommand, value_parser};
use psrpc_engine::planted::Defect;
use psrpc_simulation::check::Violation;
use psrpc_simulation::planted::{Catch, catch};
use psrpc_simulation::{Summary, check_seed, simulate, simulate_steadily};
use serde_json::{Map, Value, json};

/// Simulates clients and servers on a faulty bus, and checks what must hold.
#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run many seeds.
    Run {
        #[command(flatten)]
        size: Size,
        /// The first of them.
        #[arg(long, default_value_t = 0)]
        first: u64,
        /// Sum up as JSON in the last line.
        #[arg(long)]
        json: bool,
    },
    /// See how many claimed calls one core simulates in a second.
    Speed {
        /// So many calls.
        #[arg(long, default_value_t = 200_000)]
        calls: u64,
        /// Sum up as JSON in the last line.
        #[arg(long)]
        json: bool,
    },
    /// Run one seed, and show all that happens.
    Replay {
        /// The seed.
        seed: u64,
        /// Sum up as JSON in the last line.
        #[arg(long)]
        json: bool,
    },
    /// Plant one bug after the other in the engine, and see that each is caught.
    Planted {
        /// In so many seeds, each of them.
        #[arg(long, default_value_t = 1000)]
        seeds: u64,
        /// Those with one of these names alone.
        names: Vec<String>,
        /// Print a table in Markdown.
        #[arg(long)]
        markdown: bool,
        /// Sum up as JSON in the last line.
        #[arg(long)]
        json: bool,
    },
}

/// How much to run.
#[derive(clap::Args)]
#[group(required = true, multiple = false)]
struct Size {
    /// So many seeds; of 200 or more, each kind of fault must have met some.
    #[arg(long, value_parser = value_parser!(u64).range(1..))]
    seeds: Option<u64>,
    /// As many seeds as it takes to make so many calls.
    #[arg(long, value_parser = value_parser!(u64).range(1..))]
    calls: Option<u64>,
}

impl Size {
    fn is_reached(&self, summary: &Summary) -> bool {
        let Summary { seeds, calls, .. } = summary;
        // A seed that panics counts for one call, so that there is an end to it.
        self.seeds.is_some_and(|enough| *seeds >= enough)
            || self.calls.is_some_and(|enough| *calls.max(seeds) >= enough)
    }
}

fn main() -> ExitCode {
    let passed = match Args::parse().command {
        Command::Run { size, first, json } => run(first, &size, json),
        Command::Speed { calls, json } => speed(calls, json),
        Command::Replay { seed, json } => replay(seed, json),
        Command::Planted { seeds, names, markdown, json } => planted(seeds, &names, markdown, json),
    };
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[expect(clippy::disallowed_methods, reason = "how long it took is for people")]
fn run(first: u64, size: &Size, json: bool) -> bool {
    let started = Instant::now();
    let mut summary = Summary::new();
    while !size.is_reached(&summary) {
        let seed = first.wrapping_add(summary.seeds);
        let report = check_seed(seed);
        if let Some(violation) = &report.violation {
            show_failure(seed, violation);
        }
        summary.add(&report);
    }
    let calls_per_s = (summary.calls as f64 / started.elapsed().as_secs_f64()) as u64;
    show(&summary, calls_per_s);
    let missing = summary.missing_faults();
    for fault in &missing {
        println!("FAILED: no fault of kind {} in {} seeds", fault.name(), summary.seeds);
    }
    if json {
        let faults = summary.faults.iter().map(|(fault, count)| (fault.name().to_owned(), count.into()));
        println!(
            "{}",
            json!({
                "seeds": summary.seeds,
                "failed": summary.failed.len(),
                "calls": summary.calls,
                "calls_per_s": calls_per_s,
                "faults": faults.collect::<Map<_, Value>>(),
                "trace_hash": hex(summary.trace_hash),
            })
        );
    }
    summary.failed.is_empty() && missing.is_empty()
}

fn show(summary: &Summary, calls_per_s: u64) {
    let Summary { seeds, failed, calls, fresh_calls, outcomes, faults, trace_hash } = summary;
    println!("{seeds} seeds, {} failed; {calls} calls, {calls_per_s} a second", failed.len());
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

fn show_failure(seed: u64, violation: &Violation) {
    println!("FAILED: seed {seed} violates {violation}");
    println!("  cargo run --release -p psrpc-simulation -- replay {seed}");
}

#[expect(clippy::disallowed_methods, reason = "how long it took is the question")]
fn speed(calls: u64, json: bool) -> bool {
    let started = Instant::now();
    let mut summary = Summary::new();
    while summary.calls < calls {
        summary.add(&simulate_steadily(2000));
    }
    let calls_per_s = (summary.calls as f64 / started.elapsed().as_secs_f64()) as u64;
    println!("{} claimed calls, {calls_per_s} a second", summary.calls);
    if json {
        println!("{}", json!({ "calls": summary.calls, "calls_per_s": calls_per_s }));
    }
    summary.failed.is_empty()
}

fn replay(seed: u64, json: bool) -> bool {
    let report = simulate(seed, Some(Box::new(|line| println!("{line}"))));
    match &report.violation {
        Some(violation) => show_failure(seed, violation),
        None => println!("seed {seed} passed; trace {}", hex(report.trace_hash)),
    }
    let invariant = report.violation.as_ref().map(|violation| format!("{:?}", violation.invariant));
    if json {
        println!(
            "{}",
            json!({
                "seed": seed,
                "failed": invariant.is_some(),
                "invariant": invariant,
                "trace_hash": hex(report.trace_hash),
            })
        );
    }
    invariant.is_none()
}

fn planted(seeds: u64, names: &[String], markdown: bool, json: bool) -> bool {
    // A panic is a way to be caught, of which the report tells.
    std::panic::set_hook(Box::new(|_| {}));
    if markdown {
        println!("| defect | what it is | caught at seed | by |\n|---|---|---|---|");
    }
    let mut missed = 0;
    let mut defects = Vec::new();
    for defect in Defect::ALL {
        let (name, what) = (defect.name(), defect.what());
        if !names.is_empty() && !names.contains(&name) {
            continue;
        }
        let (caught_at, invariant) = match catch(*defect, seeds) {
            Some(Catch { seed, invariant }) => (Some(seed), Some(format!("{invariant:?}"))),
            None => (None, None),
        };
        let seed = caught_at.map_or("missed".to_owned(), |seed| seed.to_string());
        let by = invariant.as_deref().unwrap_or("nothing");
        if markdown {
            println!("| `{name}` | {what} | {seed} | {by} |");
        } else {
            println!("{name:<28} {seed:>7} {by:<7} {what}");
        }
        missed += usize::from(caught_at.is_none());
        defects.push(json!({ "name": name, "caught_at": caught_at, "invariant": invariant }));
    }
    if !markdown {
        println!("{} defects, {missed} missed in {seeds} seeds each", defects.len());
    }
    if json {
        println!("{}", json!({ "defects": defects }));
    }
    missed == 0 && !defects.is_empty()
}

fn hex(hash: u64) -> String {
    format!("{hash:016x}")
}
