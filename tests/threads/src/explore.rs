//! The schedules of a scenario.

use std::env;

use shuttle::scheduler::{DfsScheduler, PctScheduler, RandomScheduler, Scheduler, UrwRandomScheduler};
use shuttle::{Config, Runner};

/// The number of preemptions in a PCT schedule.
const PREEMPTIONS: usize = 4;

/// Runs a scenario under `schedules` schedules of each kind: random ones, evenly distributed ones,
/// and ones that delay a thread for long.
pub fn explore(schedules: usize, scenario: impl Fn() + Send + Sync + Clone + 'static) {
    let schedules = schedules * from_env("THREADS_TIMES", 1) as usize;
    let seed = from_env("THREADS_SEED", 1);
    run(RandomScheduler::new_from_seed(seed, schedules), scenario.clone());
    run(UrwRandomScheduler::new_from_seed(seed, schedules), scenario.clone());
    run(PctScheduler::new_from_seed(seed, PREEMPTIONS, schedules), scenario);
}

/// Runs a scenario under every possible schedule.
pub fn explore_all(scenario: impl Fn() + Send + Sync + 'static) {
    run(DfsScheduler::new(None, false), scenario);
}

fn run(scheduler: impl Scheduler + 'static, scenario: impl Fn() + Send + Sync + 'static) {
    let mut config = Config::new();
    config.stack_size = 1 << 19;
    // Silences the warning about weak memory orders, which the crate's documentation mentions.
    config.silence_warnings = true;
    let schedules_run = Runner::new(scheduler, config).run(scenario);
    println!("{schedules_run} schedules");
}

fn from_env(name: &str, default: u64) -> u64 {
    let set = env::var(name).ok();
    set.map_or(default, |set| {
        set.parse().unwrap_or_else(|_| panic!("cannot read {name}: {set:?} is not a number"))
    })
}
