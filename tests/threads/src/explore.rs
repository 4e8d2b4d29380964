//! Which schedules are tried.

use std::env;

use shuttle::scheduler::{DfsScheduler, PctScheduler, RandomScheduler, Scheduler, UrwRandomScheduler};
use shuttle::{Config, Runner};

/// How many of the threads' turns a PCT schedule changes.
const DEPTH: usize = 4;

/// Runs a scenario under so many schedules of each kind: random ones, those that spread evenly, and
/// those that hold a thread up for long.
pub fn explore(schedules: usize, scenario: impl Fn() + Send + Sync + Clone + 'static) {
    let schedules = schedules * from_env("THREADS_TIMES", 1) as usize;
    let seed = from_env("THREADS_SEED", 1);
    run(RandomScheduler::new_from_seed(seed, schedules), scenario.clone());
    run(UrwRandomScheduler::new_from_seed(seed, schedules), scenario.clone());
    run(PctScheduler::new_from_seed(seed, DEPTH, schedules), scenario);
}

/// Runs a scenario under every schedule that there is.
pub fn explore_all(scenario: impl Fn() + Send + Sync + 'static) {
    run(DfsScheduler::new(None, false), scenario);
}

fn run(scheduler: impl Scheduler + 'static, scenario: impl Fn() + Send + Sync + 'static) {
    let mut config = Config::new();
    config.stack_size = 1 << 19;
    // That it knows no weak memory orders is said in the documentation.
    config.silence_warnings = true;
    let ran = Runner::new(scheduler, config).run(scenario);
    println!("{ran} schedules");
}

fn from_env(name: &str, default: u64) -> u64 {
    let set = env::var(name).ok();
    set.map_or(default, |set| set.parse().unwrap_or_else(|_| panic!("{name} is {set:?}, which is no number")))
}
