//! Measures the cost of calls of every kind, next to the same hops without the protocol. Can also
//! run a steady load, or compare two builds of itself.

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

/// An error to print.
type BenchError = Box<dyn std::error::Error + Send + Sync>;

/// Counts allocations for each thread, so that counting causes no contention.
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
        Err(error) => {
            eprintln!("psrpc-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Measures the selected cells.
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
            print_errors(cell, &measured);
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
    // Tasks left over from a cell must not disturb the next one.
    runtime.shutdown_background();
    measured.map_err(|error| format!("{cell}: {error}").into())
}

fn print_errors(cell: &Cell<'_>, measured: &Measured) {
    let floors = measured.floor.iter().chain(&measured.quickest).map(|floor| ("floor ", floor));
    for (source, tally) in [("", &measured.ours)].into_iter().chain(floors) {
        if let Some(error) = tally.error() {
            eprintln!("{cell}: {} {source}calls failed, the last one with: {error}", tally.errors());
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
