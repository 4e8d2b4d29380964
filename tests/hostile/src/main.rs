//! A hostile peer on a shared bus: publishes forged frames at real clients and servers. Checks that
//! honest calls succeed during the flood, that every dropped frame is counted with its reason, and
//! that the memory stays within the limits.

#![forbid(unsafe_code)]

mod attack;
mod forge;
mod log;
mod memory;
mod network;
mod run;
mod site;
mod sizes;

use std::process::{Command, ExitCode};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use clap::Parser;

use crate::attack::{ATTACKS, Attack};
use crate::memory::MIB;
use crate::run::Outcome;
use crate::sizes::{SIZES, Size};

/// Publish forged frames of every kind at a client and a server, and print a table of the results.
/// Each kind runs in a process of its own, so that its memory is measured alone.
#[derive(Parser)]
struct Options {
    /// How many frames of each kind to publish. Kinds with large frames publish a fraction of it.
    #[arg(long, default_value_t = 1_000_000)]
    frames: usize,
    /// How many kinds to run at a time.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..))]
    jobs: u8,
    /// Run only the kind with this number, in this process.
    #[arg(long, value_parser = kind)]
    kind: Option<&'static Attack>,
    /// Print the memory of an entry of each table; run no attack.
    #[arg(long)]
    sizes: bool,
    /// Measure only the entry with this number, in this process.
    #[arg(long, value_parser = size)]
    size: Option<&'static Size>,
}

fn size(number: &str) -> Result<&'static Size, String> {
    let size = number.parse::<usize>().ok().and_then(|number| SIZES.get(number));
    size.ok_or_else(|| format!("expected a number below {}", SIZES.len()))
}

fn kind(number: &str) -> Result<&'static Attack, String> {
    let attack = number.parse::<usize>().ok().and_then(|number| ATTACKS.get(number));
    attack.ok_or_else(|| format!("expected a number below {}", ATTACKS.len()))
}

fn main() -> ExitCode {
    let options = Options::parse();
    let succeeded = match (options.kind, options.size) {
        (Some(attack), _) => here(run::run(attack, options.frames), |outcome| row(attack, outcome)),
        (None, Some(size)) => {
            here(sizes::measure(size), |bytes| format!("| {} | {} |", size.name, thousands(*bytes)))
        }
        (None, None) if options.sizes => run_sizes(),
        (None, None) => run_attacks(&options),
    };
    ExitCode::from(u8::from(!succeeded))
}

/// Runs one kind in this process, and prints its row.
fn here<T>(run: impl Future<Output = Result<T, String>>, row: impl FnOnce(&T) -> String) -> bool {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let outcome = match runtime {
        Ok(runtime) => runtime.block_on(run),
        Err(error) => Err(error.to_string()),
    };
    match &outcome {
        Ok(outcome) => println!("{}", row(outcome)),
        Err(problem) => println!("{problem}"),
    }
    outcome.is_ok()
}

/// Measures each size in its own process, and prints the table.
fn run_sizes() -> bool {
    println!("| memory of | bytes |\n|---|---|");
    let mut succeeded = true;
    for (number, size) in SIZES.iter().enumerate() {
        let row = in_process(size.name, &["--size".to_owned(), number.to_string()]);
        succeeded &= row.is_ok();
        print!("{}", row.unwrap_or_else(|problem| format!("FAILED: {problem}")));
    }
    succeeded
}

/// Runs each attack in its own process, and prints the table.
fn run_attacks(options: &Options) -> bool {
    println!(
        "| {} frames of | counted as | honest rounds | slowest call | memory before | peak | after | bound | it follows from | frames/s |",
        thousands(options.frames as u64)
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    let (next, rows) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..options.jobs {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= ATTACKS.len() {
                        return;
                    }
                    let frames = options.frames.to_string();
                    let arguments = ["--kind".to_owned(), number.to_string(), "--frames".to_owned(), frames];
                    let row = in_process(ATTACKS[number].name, &arguments);
                    rows.lock().expect("no thread panics").push((number, row));
                }
            });
        }
    });
    let mut rows = rows.into_inner().expect("no thread panics");
    rows.sort_by_key(|(number, _)| *number);
    let (passed, failed): (Vec<_>, Vec<_>) = rows.into_iter().map(|(_, row)| row).partition(Result::is_ok);
    passed.into_iter().flatten().for_each(|row| print!("{row}"));
    println!();
    for problem in failed.iter().filter_map(|row| row.as_ref().err()) {
        println!("FAILED: {problem}");
    }
    println!("{} kinds of attacks, {} failed", ATTACKS.len(), failed.len());
    failed.is_empty()
}

/// Runs this program with these arguments. Returns its output, or the reason why it failed.
fn in_process(name: &str, arguments: &[String]) -> Result<String, String> {
    let program = std::env::current_exe().map_err(|error| format!("{name}: {error}"))?;
    let output = Command::new(program).args(arguments).output();
    let output = output.map_err(|error| format!("{name}: cannot start the process: {error}"))?;
    let [stdout, stderr] =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    if output.status.success() { Ok(stdout) } else { Err(format!("{name}: {stdout}{stderr}")) }
}

/// Returns a row of the table.
fn row(attack: &Attack, outcome: &Outcome) -> String {
    let Outcome { frames, counted, lost, rounds, refused, slowest, recovered, memory, after, took, .. } =
        outcome;
    let mut counts: Vec<_> =
        counted.iter().map(|(reason, count)| format!("{reason}: {}", thousands(*count))).collect();
    if *lost > 0 {
        counts.push(format!("lost for lack of room: {}", thousands(*lost)));
    }
    let share = if attack.share > 1 { format!(" ({})", thousands(*frames as u64)) } else { String::new() };
    let refused = match refused {
        0 => String::new(),
        count => {
            format!(
                ", {} refused, until {:.0} s after the flood",
                thousands(*count as u64),
                recovered.as_secs_f64()
            )
        }
    };
    let mib = |bytes: u64| format!("{} MiB", bytes.div_ceil(MIB));
    format!(
        "| {}{share} | {} | {}{refused} | {} ms | {} | {} | {} | +{} | {} | {} |",
        attack.name,
        counts.join("; "),
        thousands(*rounds as u64),
        slowest.as_millis(),
        mib(memory.before),
        mib(memory.peak),
        mib(*after),
        mib(attack.bound.1),
        attack.bound.0,
        thousands((*frames as f64 / took.max(&Duration::from_millis(1)).as_secs_f64()) as u64),
    )
}

/// Writes a number with commas.
fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
