//! The figures of a cell: those of one run, or the medians of several runs.

use serde_json::{Map, Value, json};

use crate::cell::Measured;
use crate::measure::{Tally, ratio};

#[derive(Clone)]
pub(crate) struct Row {
    pub(crate) bus: &'static str,
    pub(crate) work: &'static str,
    pub(crate) concurrency: usize,
    pub(crate) size: usize,
    pub(crate) threads: usize,
    pub(crate) errors: u64,
    figures: [Option<f64>; FIGURES.len()],
}

/// The names of the figures in JSON.
const FIGURES: [&str; 14] = [
    "calls_per_s",
    "p50_us",
    "p99_us",
    "p999_us",
    "cpu_us_per_call",
    "allocs_per_call",
    "server_cpu_us_per_call",
    "floor_calls_per_s",
    "floor_p50_us",
    "floor_p99_us",
    "latency_ratio",
    "library_p50_us",
    "floor_cpu_us_per_call",
    "cpu_ratio",
];

impl Row {
    pub(crate) fn of(cell: &Measured) -> Self {
        let Measured { bus, work, concurrency, size, threads, ours, floor, quickest } = cell;
        // The floor for the latency.
        let quickest = quickest.as_ref().or(floor.as_ref()).map(|quickest| quickest.percentile(50.0));
        let floor_cpu = floor.as_ref().map(Tally::cpu_us);
        let figures = [
            Some(ours.per_second()),
            Some(ours.percentile(50.0)),
            Some(ours.percentile(99.0)),
            Some(ours.percentile(99.9)),
            Some(ours.cpu_us()),
            Some(ours.allocations()),
            ours.server_cpu_us(),
            floor.as_ref().map(Tally::per_second),
            quickest,
            floor.as_ref().map(|floor| floor.percentile(99.0)),
            quickest.map(|quickest| ratio(ours.percentile(50.0), quickest)),
            floor.as_ref().map(|floor| floor.percentile(50.0)),
            floor_cpu,
            floor_cpu.map(|floor| ratio(ours.cpu_us(), floor)),
        ];
        let (concurrency, size, threads) = (*concurrency, *size, *threads);
        Self { bus, work, concurrency, size, threads, errors: ours.errors(), figures }
    }

    /// Returns the median of each figure over several runs of a cell, and the sum of their errors.
    pub(crate) fn medians(runs: &[Self]) -> Self {
        let mut row = runs[0].clone();
        row.errors = runs.iter().map(|run| run.errors).sum();
        for (index, figure) in row.figures.iter_mut().enumerate() {
            let mut all: Vec<f64> = runs.iter().filter_map(|run| run.figures[index]).collect();
            all.sort_by(f64::total_cmp);
            *figure = all.get(all.len() / 2).copied();
        }
        row
    }

    /// Returns a figure by its name in JSON.
    pub(crate) fn figure(&self, name: &str) -> Option<f64> {
        let index = FIGURES.iter().position(|known| *known == name).expect("the figure exists");
        self.figures[index]
    }

    pub(crate) fn json(&self) -> Value {
        let Self { bus, work, concurrency, size, threads, errors, figures } = self;
        let described = json!({
            "bus": bus,
            "work": work,
            "concurrency": concurrency,
            "size": size,
            "threads": threads,
            "errors": errors,
        });
        let Value::Object(mut row) = described else { unreachable!("it is an object") };
        let rounded = |figure: Option<f64>| json!(figure.map(|figure| (figure * 1000.0).round() / 1000.0));
        row.extend(
            FIGURES
                .iter()
                .zip(figures)
                .map(|(name, figure)| ((*name).to_owned(), rounded(*figure)))
                .collect::<Map<_, _>>(),
        );
        Value::Object(row)
    }
}
