//! `exhaustive`: runs every schedule of small scenarios.

use std::time::Instant;

use psrpc_simulation::exhaustive::outcome::{Failure, Outcome};
use psrpc_simulation::exhaustive::scenario::Scenario;
use psrpc_simulation::exhaustive::search::exhaustive;
use serde_json::json;

/// Run every schedule of one client, two servers and one call of each kind, with at most two
/// faults.
#[derive(clap::Args)]
pub(crate) struct Exhaustive {
    /// Allow two faults instead of one on a stream with messages both ways. This takes minutes and
    /// two gigabytes of memory.
    #[arg(long)]
    large: bool,
    /// Print a summary as JSON on the last line.
    #[arg(long)]
    json: bool,
}

impl Exhaustive {
    #[expect(clippy::disallowed_methods, reason = "the elapsed time is only shown")]
    pub(crate) fn run(&self) -> bool {
        let started = Instant::now();
        let (mut schedules, mut failed) = (0, 0);
        for scenario in Scenario::all().into_iter().chain(self.large.then(Scenario::large)) {
            let outcome = exhaustive(&scenario);
            show(&outcome);
            schedules += outcome.total();
            failed += outcome.failed;
        }
        println!("{schedules} schedules, {failed} failed, in {:.1} s", started.elapsed().as_secs_f64());
        if self.json {
            println!("{}", json!({ "schedules": schedules, "failed": failed }));
        }
        failed == 0
    }
}

fn show(outcome: &Outcome) {
    let Outcome { scenario, schedules, longest, states, steps, runs, .. } = outcome;
    let by_faults = |(faults, count)| format!("{count} with {faults}");
    let by_faults: Vec<_> = schedules.iter().enumerate().map(by_faults).collect();
    println!("{scenario}: {} schedules; by number of faults: {}", outcome.total(), by_faults.join(", "));
    println!(
        "    at most {longest} steps each; {states} states, {steps} steps between them, {runs} node histories"
    );
    if let Some(Failure { violation, steps }) = &outcome.failure {
        println!("FAILED: {} schedules; the shortest violates {violation}", outcome.failed);
        for step in steps {
            println!("    {step}");
        }
    }
}
