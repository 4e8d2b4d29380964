//! The command line of the fault tests: `list` and `run`.

use std::ops::RangeInclusive;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use psrpc_faults::case::{Case, Measured};
use psrpc_faults::runtime::RuntimeName;
use psrpc_faults::setup::SetUp;
use psrpc_faults::{child, fault, table};

/// Tests fleets of clients and servers on bus servers that fail.
#[derive(Parser)]
#[command(name = "faults")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Lists the faults and their set-ups.
    List,
    /// Runs cases one after the other, each in a process of its own. Exits with an error if one
    /// fails.
    Run {
        #[command(flatten)]
        selection: Selection,
        /// How often to run each case.
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
        times: u32,
        /// Write the results of cases that passed into the table of docs/testing.md.
        #[arg(long)]
        table: bool,
    },
    /// Runs one case in this process.
    #[command(hide = true)]
    Case { set_up: SetUp, fault: String, runtime: RuntimeName },
}

/// Which cases to run.
#[derive(clap::Args)]
struct Selection {
    /// Only run cases on this set-up.
    #[arg(long)]
    set_up: Option<SetUp>,
    /// Only run cases with the fault of this name.
    #[arg(long, value_parser = parse_fault)]
    fault: Option<String>,
    /// Only run cases on this runtime.
    #[arg(long)]
    runtime: Option<RuntimeName>,
    /// Only run each M-th case, beginning with the N-th: `N/M`, such as `1/4`.
    #[arg(long, value_name = "N/M", value_parser = parse_slice)]
    slice: Option<Slice>,
}

#[derive(Clone, Copy)]
struct Slice {
    number: usize,
    of: usize,
}

fn parse_fault(name: &str) -> Result<String, String> {
    let known = || fault::all().map(|fault| fault.name).collect::<Vec<_>>().join(", ");
    fault::named(name)
        .map(|fault| fault.name.to_owned())
        .ok_or_else(|| format!("expected one of: {}", known()))
}

fn parse_slice(slice: &str) -> Result<Slice, String> {
    let parsed =
        slice.split_once('/').and_then(|(number, of)| Some((number.parse().ok()?, of.parse().ok()?)));
    match parsed {
        Some((number, of)) if RangeInclusive::new(1, of).contains(&number) => Ok(Slice { number, of }),
        _ => Err("expected N/M with N from 1 to M".to_owned()),
    }
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::List => list(),
        Command::Run { selection, times, table } => run(&selection.cases(), times, table),
        Command::Case { set_up, fault, runtime } => run_here(set_up, &fault, runtime),
    }
}

/// Returns all cases.
fn all_cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for set_up in SetUp::ALL {
        for fault in fault::all().filter(|fault| fault.set_ups.contains(&set_up)) {
            cases.extend(RuntimeName::ALL.map(|runtime| Case { fault, set_up, runtime }));
        }
    }
    cases
}

impl Selection {
    fn cases(&self) -> Vec<Case> {
        let Slice { number, of } = self.slice.unwrap_or(Slice { number: 1, of: 1 });
        let in_slice = all_cases().into_iter().skip(number - 1).step_by(of);
        in_slice.filter(|case| self.selects(case)).collect()
    }

    fn selects(&self, case: &Case) -> bool {
        self.set_up.is_none_or(|set_up| case.set_up == set_up)
            && self.fault.as_deref().is_none_or(|fault| case.fault.name == fault)
            && self.runtime.is_none_or(|runtime| case.runtime == runtime)
    }
}

fn list() -> ExitCode {
    for fault in fault::all() {
        let set_ups: Vec<_> = fault.set_ups.iter().map(|set_up| set_up.as_str()).collect();
        println!("{:<22} {} ({})", fault.name, fault.about, set_ups.join(", "));
    }
    ExitCode::SUCCESS
}

fn run(cases: &[Case], times: u32, with_table: bool) -> ExitCode {
    let (mut results, mut failed) = (Vec::new(), 0);
    for _ in 0..times {
        for case in cases {
            let (measured, checked) = child::run(case);
            match checked {
                Ok(()) => {
                    println!("ok     {case}: {}", describe(measured));
                    results.extend(measured.map(|measured| (*case, measured)));
                }
                Err(problem) => {
                    failed += 1;
                    println!("FAILED {case}: {problem}\n       {}", describe(measured));
                }
            }
        }
    }
    if with_table && let Err(error) = table::update(&all_cases(), &results) {
        eprintln!("--table: {error}");
        return ExitCode::FAILURE;
    }
    println!("faults: {} passed, {failed} failed", results.len());
    if failed == 0 && !results.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn describe(measured: Option<Measured>) -> String {
    let Some(Measured { totals, recovery, longest_stall, memory }) = measured else {
        return "no figures".to_owned();
    };
    format!(
        "{} calls, {} answered, {} failed, {} pending, {} announced calls run twice; back after {recovery:?}; stalls of \
         up to {longest_stall:?}; {memory} MB",
        totals.made, totals.answered, totals.failed, totals.pending, totals.announced_twice
    )
}

fn run_here(set_up: SetUp, fault: &str, runtime: RuntimeName) -> ExitCode {
    let Some(fault) = fault::named(fault) else {
        println!("unknown fault {fault:?}");
        return ExitCode::FAILURE;
    };
    let (measured, checked) = Case { fault, set_up, runtime }.run();
    println!("{}", child::write(&measured));
    match checked {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            println!("{problem}");
            ExitCode::FAILURE
        }
    }
}
