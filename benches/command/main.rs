//! The command: measures what calls of every kind cost, beside the same hops made without the protocol; or runs a steady
//! load for as long as it is told.

mod args;
mod cell;
mod fleet;
mod floor;
mod load;
mod measure;
mod place;
mod plot;
mod progress;
mod report;
mod scale;
mod soak;
mod work;

use std::fs;
use std::process::ExitCode;

use clap::Parser;
use tokio::runtime::{Builder, Runtime};

use args::{Args, Command, Run};
use cell::{Cell, Measured};
use progress::Progress;
use work::Work;

/// What can go wrong here; people read it.
type Fault = Box<dyn std::error::Error + Send + Sync>;

/// Counts on each thread for itself, so that counting holds nobody up.
#[global_allocator]
static ALLOCATOR: alloc_tracker::Allocator<std::alloc::System> = alloc_tracker::Allocator::system();

fn main() -> ExitCode {
    let args = Args::parse();
    let outcome = match &args.command {
        Some(Command::Soak(soak)) => soak.run(),
        Some(Command::Scale(scale)) => scale.run(),
        None => run(&args.run).map(|()| true),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(fault) => {
            eprintln!("psrpc-bench: {fault}");
            ExitCode::FAILURE
        }
    }
}

/// Measures every cell that was asked for.
fn run(run: &Run) -> Result<(), Fault> {
    let places = run.open()?;
    let cells = cells(run, &places);
    let mut progress = Progress::new(cells.len());
    let mut measured: Vec<Measured> = Vec::new();
    for cell in cells {
        progress.begin(&cell.to_string());
        let runtime = runtime(cell.threads)?;
        let one = runtime.block_on(cell.measure(run.seconds()));
        // What a cell leaves behind is not to be in the next one's way.
        runtime.shutdown_background();
        let one = one.map_err(|fault| format!("{cell}: {fault}"))?;
        progress.clear();
        let floors = one.floor.iter().chain(&one.quickest).map(|floor| ("of a floor ", floor));
        for (whose, tally) in [("", &one.ours)].into_iter().chain(floors) {
            if let Some(error) = tally.error() {
                eprintln!("{cell}: {} {whose}failed, the last with: {error}", tally.errors());
            }
        }
        if measured.is_empty() {
            println!("{}", report::HEAD);
        }
        println!("{}", report::line(&one));
        measured.push(one);
    }
    println!("{}", report::LEGEND);
    if let Some(file) = &run.plot {
        fs::write(file, plot::chart(&measured)).map_err(|error| format!("{}: {error}", file.display()))?;
    }
    if run.json {
        println!("{}", report::json(&measured));
    }
    Ok(())
}

/// What there is to measure, in the order in which it is.
fn cells<'a>(run: &Run, places: &'a [place::Place]) -> Vec<Cell<'a>> {
    let mut cells = Vec::new();
    for threads in run.threads() {
        for place in places {
            for work in run.work().filter(|work| *work != Work::Engine) {
                for concurrency in run.concurrency() {
                    let (place, size, has_floor) = (Some(place), run.size, !run.no_floor);
                    cells.push(Cell { place, work, concurrency, size, threads, has_floor });
                }
            }
        }
    }
    if run.work().any(|work| work == Work::Engine) {
        cells.push(Cell::engine());
    }
    cells
}

fn runtime(threads: usize) -> Result<Runtime, Fault> {
    let mut builder = if threads == 1 { Builder::new_current_thread() } else { Builder::new_multi_thread() };
    if threads > 1 {
        builder.worker_threads(threads);
    }
    Ok(builder.enable_all().build()?)
}
