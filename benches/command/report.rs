//! What was measured, as a table for people and as JSON for tools.

use serde_json::{Value, json};

use crate::cell::Measured;
use crate::measure::{Tally, ratio};

pub(crate) const HEAD: &str = "\
bus   work         threads conc |   calls/s   p50 us   p99 us p99.9 us   CPU us  allocs errors | floor/s  p50 us    ratio  CPU us  ratio";

pub(crate) const LEGEND: &str = "\
CPU and allocations: of this process, for each call. Floor: the same hops without the protocol. In process tokio channels;
else the bare client library; but p50 at a concurrency of 1: bare blocking sockets.";

impl Measured {
    /// Whose latency ours is compared with.
    pub(crate) fn latency_floor(&self) -> Option<&Tally> {
        self.quickest.as_ref().or(self.floor.as_ref())
    }

    pub(crate) fn latency_ratio(&self) -> Option<f64> {
        Some(ratio(self.ours.percentile(50.0), self.latency_floor()?.percentile(50.0)))
    }

    pub(crate) fn cpu_ratio(&self) -> Option<f64> {
        Some(ratio(self.ours.cpu_us(), self.floor.as_ref()?.cpu_us()))
    }
}

pub(crate) fn line(cell: &Measured) -> String {
    let Measured { bus, work, concurrency, threads, ours, floor, .. } = cell;
    let mut line = format!(
        "{bus:<5} {work:<12} {threads:>7} {concurrency:>4} | {:>9.0} {:>8.2} {:>8.2} {:>8.2} {:>8.2} {:>7.1} {:>6} |",
        ours.per_second(),
        ours.percentile(50.0),
        ours.percentile(99.0),
        ours.percentile(99.9),
        ours.cpu_us(),
        ours.allocations(),
        ours.errors(),
    );
    if let (Some(floor), Some(latency), Some(by_p50), Some(by_cpu)) =
        (floor, cell.latency_floor(), cell.latency_ratio(), cell.cpu_ratio())
    {
        let (per_second, p50, cpu) = (floor.per_second(), latency.percentile(50.0), floor.cpu_us());
        line += &format!("{per_second:>8.0} {p50:>7.2} {by_p50:>7.2}x {cpu:>7.2} {by_cpu:>5.2}x");
    }
    line
}

pub(crate) fn json(cells: &[Measured]) -> Value {
    json!({ "cells": cells.iter().map(cell).collect::<Vec<_>>() })
}

fn cell(cell: &Measured) -> Value {
    let Measured { bus, work, concurrency, size, threads, ours, floor, .. } = cell;
    let latency_floor = cell.latency_floor();
    json!({
        "bus": bus,
        "work": work,
        "concurrency": concurrency,
        "size": size,
        "threads": threads,
        "calls_per_s": rounded(ours.per_second()),
        "p50_us": rounded(ours.percentile(50.0)),
        "p99_us": rounded(ours.percentile(99.0)),
        "p999_us": rounded(ours.percentile(99.9)),
        "cpu_us_per_call": rounded(ours.cpu_us()),
        "allocs_per_call": rounded(ours.allocations()),
        "errors": ours.errors(),
        "floor_calls_per_s": floor.as_ref().map(|floor| rounded(floor.per_second())),
        "floor_p50_us": latency_floor.map(|floor| rounded(floor.percentile(50.0))),
        "latency_ratio": cell.latency_ratio().map(rounded),
        "floor_cpu_us_per_call": floor.as_ref().map(|floor| rounded(floor.cpu_us())),
        "cpu_ratio": cell.cpu_ratio().map(rounded),
    })
}

/// As many digits as mean anything.
fn rounded(number: f64) -> f64 {
    (number * 1000.0).round() / 1000.0
}
