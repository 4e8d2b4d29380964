//! Results as a table and as JSON.

use serde_json::{Value, json};

use crate::measure::ratio;
use crate::row::Row;

pub(crate) const HEAD: &str = "\
bus   work         threads conc |   calls/s   p50 us   p99 us p99.9 us   CPU us  allocs bus CPU errors | floor/s  p50 us    ratio  lib p50    ratio  p99 us  CPU us  ratio";

pub(crate) const LEGEND: &str = "\
CPU and allocs: of this process, per call. Bus CPU: of the bus's server. Floor: the same hops without the protocol, on tokio channels in process and on
the bare client library elsewhere. On Redis and NATS, its p50 at a concurrency of 1 is that of bare blocking sockets. Lib p50: always that of the channels or the library.";

pub(crate) fn line(row: &Row) -> String {
    let Row { bus, work, concurrency, threads, errors, .. } = row;
    let figure = |name| row.figure(name).unwrap_or_default();
    let mut line = format!(
        "{bus:<5} {work:<12} {threads:>7} {concurrency:>4} | {:>9.0} {:>8.2} {:>8.2} {:>8.2} {:>8.2} {:>7.1} {:>7.2} {errors:>6} |",
        figure("calls_per_s"),
        figure("p50_us"),
        figure("p99_us"),
        figure("p999_us"),
        figure("cpu_us_per_call"),
        figure("allocs_per_call"),
        figure("server_cpu_us_per_call"),
    );
    if let (Some(latency), Some(cpu)) = (row.figure("latency_ratio"), row.figure("cpu_ratio")) {
        let (per_second, p50, p99) =
            (figure("floor_calls_per_s"), figure("floor_p50_us"), figure("floor_p99_us"));
        let (library, floor_cpu) = (figure("library_p50_us"), figure("floor_cpu_us_per_call"));
        let of_library = ratio(figure("p50_us"), library);
        line += &format!(
            "{per_second:>8.0} {p50:>7.2} {latency:>7.2}x {library:>8.2} {of_library:>7.2}x {p99:>7.2} {floor_cpu:>7.2} {cpu:>5.2}x"
        );
    }
    line
}

pub(crate) fn json(rows: &[Row]) -> Value {
    json!({ "cells": rows.iter().map(Row::json).collect::<Vec<_>>() })
}
