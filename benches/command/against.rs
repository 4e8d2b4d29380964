//! `--against`: compares this build with another build of the command, in turns.
//!
//! The other build may predate this option. Both builds therefore run as child processes, with
//! options that measure a single cell, and the results are read from the summary that `--json`
//! prints.
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::BenchError;
use crate::args::{CellSpec, Run};
use crate::measure::ratio;
use crate::place::BusArgument;
use crate::progress::Progress;

const HEAD: &str = "\
bus   work         threads conc | CPU us/call    other   ratio       min..max | calls/s    other   ratio       min..max";

const LEGEND: &str = "\
Medians of all rounds. Ratio: this build to the other in the same round; the median, smallest and largest of all rounds.";

/// Compares the builds on every cell, and prints a line for each cell.
pub(crate) fn run(run: &Run, binary: &Path) -> Result<(), BenchError> {
    let builds = Builds { this: Build::this()?, other: Build::other(binary)? };
    let cells = run.cells(run.buses());
    let mut progress = Progress::new(cells.len());
    let (rounds, seconds) = (run.runs(), run.seconds().as_secs_f64());
    println!(
        "comparing this build with {}: {rounds} rounds, {seconds} s for each build and round",
        binary.display()
    );
    println!("{HEAD}");
    let mut summaries = Vec::new();
    for cell in &cells {
        progress.begin(&cell.to_string());
        let compared = builds.compare(run, cell);
        progress.clear();
        let compared = compared.map_err(|error| format!("{cell}: {error}"))?;
        println!("{}", compared.line(cell));
        summaries.push(compared.json(cell, run.size));
    }
    println!("{LEGEND}");
    if run.json {
        println!(
            "{}",
            json!({ "against": binary.display().to_string(), "rounds": rounds, "cells": summaries })
        );
    }
    Ok(())
}

type Spec<'a> = CellSpec<'a, BusArgument>;

struct Builds {
    this: Build,
    other: Build,
}

impl Builds {
    /// Measures a cell with both builds in every round.
    fn compare(&self, run: &Run, cell: &Spec<'_>) -> Result<Compared, BenchError> {
        let (mut this, mut other) = (Vec::new(), Vec::new());
        for round in 0..run.runs() {
            let mut turns = [(&self.other, &mut other), (&self.this, &mut this)];
            // The builds alternate in going first.
            if round % 2 == 1 {
                turns.reverse();
            }
            for (build, measured) in turns {
                measured.push(build.measure(run, cell)?);
            }
        }
        let compare = |figure: fn(&Figures) -> f64| {
            Comparison::of(this.iter().map(figure).collect(), other.iter().map(figure).collect())
        };
        Ok(Compared { cpu: compare(|one| one.cpu_us_per_call), rate: compare(|one| one.calls_per_s) })
    }
}

/// A build of this command.
struct Build {
    /// The name in error messages.
    name: String,
    program: PathBuf,
}

/// The figures of a cell that a build prints.
struct Figures {
    cpu_us_per_call: f64,
    calls_per_s: f64,
}

impl Build {
    fn this() -> Result<Self, BenchError> {
        let program = std::env::current_exe()
            .map_err(|error| format!("failed to find the executable of this build: {error}"))?;
        Ok(Self { name: "this build".to_owned(), program })
    }

    fn other(binary: &Path) -> Result<Self, BenchError> {
        let name = binary.display().to_string();
        // Canonicalized, since a bare file name would be searched for in PATH.
        let program = fs::canonicalize(binary).map_err(|error| format!("failed to run {name}: {error}"))?;
        Ok(Self { name, program })
    }

    /// Measures a cell once, in a child process.
    fn measure(&self, run: &Run, cell: &Spec<'_>) -> Result<Figures, BenchError> {
        let mut command = Command::new(&self.program);
        command.args(["--json", "--no-floor", "--runs=1"]);
        if let Some(bus) = cell.bus {
            command.arg(format!("--bus={bus}"));
        }
        command
            .arg(format!("--work={}", cell.work.name()))
            .arg(format!("--threads={}", cell.threads))
            .arg(format!("--concurrency={}", cell.concurrency))
            .arg(format!("--size={}", run.size))
            .arg(format!("--seconds={}", run.seconds().as_secs_f64()));
        let name = &self.name;
        let Output { status, stdout, stderr } = command
            .stdin(Stdio::null())
            .output()
            .map_err(|error| format!("failed to run {name}: {error}"))?;
        let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
        if !status.success() {
            return Err(format!("{name}: failed with {status}: {}", shortened(&stderr)).into());
        }
        let last = stdout.trim_end().lines().last().unwrap_or_default();
        match summary(last, cell) {
            Some((figures, 0)) => Ok(figures),
            Some((_, errors)) => Err(format!("{name}: {errors} calls failed: {}", shortened(&stderr)).into()),
            None => Err(format!(
                "{name}: expected a JSON summary of the cell in the last line, got: {}",
                shortened(last)
            )
            .into()),
        }
    }
}

/// Parses the figures of a cell and the number of failed calls from the JSON summary of a run.
/// Returns `None` if the text is not such a summary.
fn summary(text: &str, cell: &Spec<'_>) -> Option<(Figures, u64)> {
    let summary: Value = serde_json::from_str(text).ok()?;
    let [found] = summary["cells"].as_array()?.as_slice() else { return None };
    let is_it = found["work"] == cell.work.name()
        && found["threads"] == cell.threads
        && found["concurrency"] == cell.concurrency;
    let number = |key: &str| found[key].as_f64();
    let figures =
        Figures { cpu_us_per_call: number("cpu_us_per_call")?, calls_per_s: number("calls_per_s")? };
    is_it.then_some((figures, found["errors"].as_u64()?))
}

/// Shortens a text to one line.
fn shortened(text: &str) -> String {
    const LONGEST: usize = 300;
    let words: Vec<_> = text.split_whitespace().collect();
    let line = words.join(" ");
    match line.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}...", &line[..end]),
        None if line.is_empty() => "(no output)".to_owned(),
        None => line,
    }
}

/// A cell, measured with both builds.
struct Compared {
    cpu: Comparison,
    rate: Comparison,
}

impl Compared {
    fn line(&self, cell: &Spec<'_>) -> String {
        let CellSpec { work, concurrency, threads, .. } = cell;
        let ratio = |of: &Comparison| {
            let spread = format!("{:.3}..{:.3}", of.smallest, of.largest);
            format!("{:>6.3}x {spread:>14}", of.ratio)
        };
        let (bus, work, cpu, rate) = (cell.bus_name(), work.name(), &self.cpu, &self.rate);
        format!(
            "{bus:<5} {work:<12} {threads:>7} {concurrency:>4} | {:>11.3} {:>8.3} {} | {:>7.0} {:>8.0} {}",
            cpu.this,
            cpu.other,
            ratio(cpu),
            rate.this,
            rate.other,
            ratio(rate),
        )
    }

    fn json(&self, cell: &Spec<'_>, size: usize) -> Value {
        json!({
            "bus": cell.bus_name(),
            "work": cell.work.name(),
            "concurrency": cell.concurrency,
            "size": size,
            "threads": cell.threads,
            "cpu_us_per_call": self.cpu.json(),
            "calls_per_s": self.rate.json(),
        })
    }
}

/// A figure of both builds.
#[derive(Debug, PartialEq)]
struct Comparison {
    /// The median of this build.
    this: f64,
    /// The median of the other build.
    other: f64,
    /// The median of the rounds' ratios.
    ratio: f64,
    smallest: f64,
    largest: f64,
}

impl Comparison {
    /// Compares the figures of at least one round.
    fn of(this: Vec<f64>, other: Vec<f64>) -> Self {
        let mut ratios: Vec<_> = this.iter().zip(&other).map(|(this, other)| ratio(*this, *other)).collect();
        ratios.sort_by(f64::total_cmp);
        let (smallest, largest) = (ratios[0], ratios[ratios.len() - 1]);
        Self { this: median(this), other: median(other), ratio: median(ratios), smallest, largest }
    }

    fn json(&self) -> Value {
        json!({
            "this": self.this,
            "other": self.other,
            "ratio": self.ratio,
            "smallest_ratio": self.smallest,
            "largest_ratio": self.largest,
        })
    }
}

/// Returns the median of at least one figure; for an even number, the mean of the two middle ones.
fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    let middle = figures.len() / 2;
    if figures.len() % 2 == 1 { figures[middle] } else { f64::midpoint(figures[middle - 1], figures[middle]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ratio_is_the_median_of_the_rounds() {
        let compared = Comparison::of(vec![1.0, 9.0, 3.0], vec![2.0, 10.0, 4.0]);
        let expected = Comparison { this: 3.0, other: 4.0, ratio: 0.75, smallest: 0.5, largest: 0.9 };
        assert_eq!(compared, expected);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 9.0]), 3.0);
    }

    #[test]
    fn what_a_build_printed_is_shortened_to_one_line() {
        assert_eq!(shortened("error: no\n\n  such option\n"), "error: no such option");
        assert_eq!(shortened(" \n"), "(no output)");
        assert_eq!(shortened(&"é".repeat(400)), "é".repeat(300) + "...");
    }
}
