//! `speed`: measures how many calls per second one core simulates.

use std::time::Instant;

use psrpc_simulation::{Summary, simulate_steadily};
use serde_json::json;

/// Measure how many claimed calls per second one core simulates.
#[derive(clap::Args)]
pub(crate) struct Speed {
    /// The number of calls.
    #[arg(long, default_value_t = 200_000)]
    calls: u64,
    /// Print a summary as JSON on the last line.
    #[arg(long)]
    json: bool,
}

impl Speed {
    #[expect(clippy::disallowed_methods, reason = "the command measures elapsed time")]
    pub(crate) fn run(&self) -> bool {
        let started = Instant::now();
        let mut summary = Summary::new();
        while summary.calls < self.calls {
            summary.add(&simulate_steadily(2000));
        }
        let calls_per_s = (summary.calls as f64 / started.elapsed().as_secs_f64()) as u64;
        println!("{} claimed calls, {calls_per_s} a second", summary.calls);
        if self.json {
            println!("{}", json!({ "calls": summary.calls, "calls_per_s": calls_per_s }));
        }
        summary.failed.is_empty()
    }
}
