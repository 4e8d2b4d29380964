//! The table of results in docs/testing.md.

use std::fmt::Write;
use std::time::Duration;

use crate::case::{Case, Measured};

/// Returns the table as Markdown. Calls are rounded to tens and times to 50 ms, since they differ
/// from run to run.
pub fn markdown(results: &[(Case, Measured)]) -> String {
    let mut table = "| fault | set-up | runtime | calls | answered | failed in time | hung | run twice | announced, run twice | back after | peak memory |\n\
                     |---|---|---|---|---|---|---|---|---|---|---|\n"
        .to_owned();
    for (case, Measured { totals, recovery, memory, .. }) in results {
        let _ = writeln!(
            table,
            "| {} | {} | {} | {} | {} | {} | {} | 0 | {} | {} | {memory} MB |",
            case.fault.name,
            case.set_up.as_str(),
            case.runtime.as_str(),
            tens(totals.made),
            tens(totals.answered),
            tens(totals.failed),
            totals.pending,
            totals.announced_twice,
            rounded(*recovery),
        );
    }
    table
}

fn tens(calls: u64) -> u64 {
    calls.div_ceil(10) * 10
}

fn rounded(time: Duration) -> String {
    format!("{:.2} s", (time.as_secs_f64() * 20.0).ceil() / 20.0)
}
