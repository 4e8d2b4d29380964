//! The command: measures what calls of every kind cost, beside the same hops made without the
//! protocol; or runs a steady load for as long as it is told; or compares two builds of itself.

mod against;
mod args;
mod cell;
mod compress;
mod fleet;
mod floor;
mod load;
mod measure;
mod place;
mod plot;
mod progress;
mod report;
mod row;
mod scale;
mod soak;
mod topics;
mod work;

use std::fs;
use std::process::ExitCode;

use clap::Parser;
use tokio::runtime::{Builder, Runtime};

use args::{Args, Command, Run};
use cell::{Cell, Measured};
use progress::Progress;
use row::Row;

/// What can go wrong here; people read it.
type BenchError = Box<dyn std::error::Error + Send + Sync>;

/// Counts on each thread for itself, so that counting holds nobody up.
#[global_allocator]
static ALLOCATOR: alloc_tracker::Allocator<std::alloc::System> = alloc_tracker::Allocator::system();

fn main() -> ExitCode {
    let args = Args::parse();
    let outcome = match &args.command {
        Some(Command::Soak(soak)) => soak.run(),
        Some(Command::Scale(scale)) => scale.run(),
        Some(Command::Compress(compress)) => compress.run(),
        None => match args.run.against() {
            Some(binary) => against::run(&args.run, binary).map(|()| true),
            None => run(&args.run).map(|()| true),
        },
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
fn run(run: &Run) -> Result<(), BenchError> {
    let places = run.open()?;
    let cells: Vec<_> = run.cells(&places).iter().map(|spec| Cell::of(spec, run)).collect();
    let mut progress = Progress::new(cells.len() * run.runs());
    let mut runs: Vec<Vec<Row>> = Vec::new();
    println!("{}", report::HEAD);
    for _ in 0..run.runs() {
        let mut rows = Vec::new();
        for cell in &cells {
            progress.begin(&cell.to_string());
            let measured = measure(run, cell)?;
            progress.clear();
            tell_errors(cell, &measured);
            let row = Row::of(&measured);
            println!("{}", report::line(&row));
            rows.push(row);
        }
        runs.push(rows);
    }
    let of_cell = |cell: usize| runs.iter().map(|rows| rows[cell].clone()).collect::<Vec<_>>();
    let rows: Vec<_> = (0..cells.len()).map(|cell| Row::medians(&of_cell(cell))).collect();
    if run.runs() > 1 {
        println!("\nmedians of {} runs\n{}", run.runs(), report::HEAD);
        rows.iter().for_each(|row| println!("{}", report::line(row)));
    }
    println!("{}", report::LEGEND);
    if let Some(file) = &run.plot {
        fs::write(file, plot::chart(&rows)).map_err(|error| format!("{}: {error}", file.display()))?;
    }
    if run.json {
        println!("{}", report::json(&rows));
    }
    Ok(())
}

fn measure(run: &Run, cell: &Cell<'_>) -> Result<Measured, BenchError> {
    let runtime = runtime(cell.threads)?;
    let measured = runtime.block_on(cell.measure(run.seconds()));
    // What a cell leaves behind is not to be in the next one's way.
    runtime.shutdown_background();
    measured.map_err(|fault| format!("{cell}: {fault}").into())
}

fn tell_errors(cell: &Cell<'_>, measured: &Measured) {
    let floors = measured.floor.iter().chain(&measured.quickest).map(|floor| ("of a floor ", floor));
    for (whose, tally) in [("", &measured.ours)].into_iter().chain(floors) {
        if let Some(error) = tally.error() {
            eprintln!("{cell}: {} {whose}failed, the last with: {error}", tally.errors());
        }
    }
}

fn runtime(threads: usize) -> Result<Runtime, BenchError> {
    let mut builder = if threads == 1 { Builder::new_current_thread() } else { Builder::new_multi_thread() };
    if threads > 1 {
        builder.worker_threads(threads);
    }
    Ok(builder.enable_all().build()?)
}
