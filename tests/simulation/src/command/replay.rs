//! `replay`: one seed, and all that happens in it.

use psrpc_engine::planted::{Defect, plant};
use psrpc_simulation::{Line, simulate};
use serde_json::json;

use super::{hex, show_failure, show_shrunk, silence_panics};

/// Run one seed, and show all that happens.
#[derive(clap::Args)]
pub(crate) struct Replay {
    /// The seed.
    seed: u64,
    /// If it fails, show only what it takes to fail.
    #[arg(long)]
    shrink: bool,
    /// With this bug in the engine, one of those that `planted` plants.
    #[arg(long, value_name = "NAME", value_parser = defect)]
    planted: Option<Defect>,
    /// Sum up as JSON in the last line.
    #[arg(long)]
    json: bool,
}

fn defect(name: &str) -> Result<Defect, String> {
    let known = Defect::ALL.iter().find(|defect| defect.name() == name);
    known.copied().ok_or_else(|| "there is no such bug; `planted` names them".to_owned())
}

impl Replay {
    pub(crate) fn run(&self) -> bool {
        plant(self.planted);
        let seed = self.seed;
        let show = |line: &Line| println!("{line}");
        let report = simulate(seed, if self.shrink { None } else { Some(Box::new(show)) });
        match &report.violation {
            Some(found) => {
                show_failure(seed, found);
                if self.shrink {
                    silence_panics();
                    show_shrunk(seed);
                }
            }
            None => println!("seed {seed} passed; trace {}", hex(report.trace_hash)),
        }
        let invariant = report.violation.as_ref().map(|violation| format!("{:?}", violation.invariant));
        if self.json {
            println!(
                "{}",
                json!({
                    "seed": seed,
                    "failed": invariant.is_some(),
                    "invariant": invariant,
                    "trace_hash": hex(report.trace_hash),
                })
            );
        }
        invariant.is_none()
    }
}
