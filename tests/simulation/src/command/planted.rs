//! `planted`: plants one bug after the other and checks that the simulator catches each.

use psrpc_engine::planted::Defect;
use psrpc_simulation::seeds::planted_defects::{Catch, catch};
use serde_json::json;

use super::silence_panics;

/// Plant one bug after the other in the engine or the driver, and check that each is caught.
#[derive(clap::Args)]
pub(crate) struct Planted {
    /// The maximum number of seeds to run for each bug.
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// The names of the bugs to plant; all if empty.
    names: Vec<String>,
    /// Print a table in Markdown.
    #[arg(long)]
    markdown: bool,
    /// Print a summary as JSON on the last line.
    #[arg(long)]
    json: bool,
}

impl Planted {
    pub(crate) fn run(&self) -> bool {
        let Self { seeds, names, markdown, json } = self;
        // A panic counts as caught, and the report contains it.
        silence_panics();
        if *markdown {
            println!("| defect | what it is | caught at seed | by |\n|---|---|---|---|");
        }
        let is_known = |name: &&String| Defect::ALL.iter().any(|defect| defect.name() == **name);
        if let Some(unknown) = names.iter().find(|name| !is_known(name)) {
            println!("FAILED: unknown bug {unknown}; run `planted` without names to list all");
            return false;
        }
        let mut missed = 0;
        let mut defects = Vec::new();
        for defect in Defect::ALL {
            let (name, what) = (defect.name(), defect.what());
            if !names.is_empty() && !names.contains(&name) {
                continue;
            }
            let (caught_at, invariant) = match catch(*defect, *seeds) {
                Some(Catch { seed, invariant }) => (Some(seed), Some(format!("{invariant:?}"))),
                None => (None, None),
            };
            let seed = caught_at.map_or("missed".to_owned(), |seed| seed.to_string());
            let by = invariant.as_deref().unwrap_or("nothing");
            if *markdown {
                println!("| `{name}` | {what} | {seed} | {by} |");
            } else {
                println!("{name:<28} {seed:>7} {by:<7} {what}");
            }
            missed += usize::from(caught_at.is_none());
            defects.push(json!({ "name": name, "caught_at": caught_at, "invariant": invariant }));
        }
        if !markdown {
            println!("{} defects, {missed} missed in {seeds} seeds each", defects.len());
        }
        if *json {
            println!("{}", json!({ "defects": defects }));
        }
        missed == 0 && !defects.is_empty()
    }
}
