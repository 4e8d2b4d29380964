//! `replay`: runs one seed and prints its trace.

use std::fs;
use std::path::PathBuf;
use std::sync::mpsc;

#[cfg(psrpc_planted)]
use psrpc_engine::planted::{Defect, plant};
use psrpc_simulation::{Line, Report, same_trace, sequence_chart, simulate_seed};
use serde_json::json;

use super::{hex, show_failure, show_shrunk, silence_panics};

/// Run one seed and print its trace.
#[derive(clap::Args)]
pub(crate) struct Replay {
    /// The seed.
    seed: u64,
    /// If the seed fails, print only the events needed for the failure.
    #[arg(long)]
    shrink: bool,
    /// Draw a message sequence chart of the printed trace.
    #[arg(long, value_name = "FILE.svg")]
    chart: Option<PathBuf>,
    /// Plant this bug, one of those listed by `planted`.
    #[cfg(psrpc_planted)]
    #[arg(long, value_name = "NAME", value_parser = defect)]
    planted: Option<Defect>,
    /// Print a summary as JSON on the last line.
    #[arg(long)]
    json: bool,
}

#[cfg(psrpc_planted)]
fn defect(name: &str) -> Result<Defect, String> {
    let known = Defect::ALL.iter().find(|defect| defect.name() == name);
    known.copied().ok_or_else(|| "unknown bug; run `planted` to list all".to_owned())
}

impl Replay {
    pub(crate) fn run(&self) -> bool {
        #[cfg(psrpc_planted)]
        plant(self.planted);
        let seed = self.seed;
        let (keep, lines) = mpsc::channel();
        let shown = !self.shrink;
        let report = simulate_seed(seed, || {
            let keep = keep.clone();
            Some(Box::new(move |line: &Line| {
                if shown {
                    println!("{line}");
                }
                keep.send(line.clone()).expect("the lines are collected below");
            }))
        });
        drop(keep);
        let report = match same_trace(&report, &simulate_seed(seed, || None)) {
            Err(violation) if report.violation.is_none() => Report { violation: Some(violation), ..report },
            _ => report,
        };
        let (mut lines, mut violation) = (lines.iter().collect::<Vec<_>>(), report.violation.clone());
        match &report.violation {
            Some(found) => {
                show_failure(seed, found);
                if self.shrink {
                    silence_panics();
                    match show_shrunk(seed) {
                        Some(shrunk) => (lines, violation) = (shrunk.lines, Some(shrunk.violation)),
                        // Runs of services cannot be shrunk.
                        None => lines.iter().for_each(|line| println!("{line}")),
                    }
                }
            }
            None => println!("seed {seed} passed; trace {}", hex(report.trace_hash)),
        }
        let drawn = self.chart.as_ref().is_none_or(|file| {
            let written = fs::write(file, sequence_chart(seed, &lines, violation.as_ref()));
            written.inspect_err(|error| println!("FAILED: cannot write {}: {error}", file.display())).is_ok()
        });
        let invariant = report.violation.as_ref().map(|violation| format!("{:?}", violation.invariant));
        if self.json {
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
        invariant.is_none() && drawn
    }
}
