//! Outcomes: how many schedules of a scenario there are, and whether each passed.

use super::scenario::Scenario;
use crate::judge::violation::Violation;

/// What became of all schedules of a scenario.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The name of the scenario.
    pub scenario: String,
    /// How many schedules there are, by how many faults each has.
    pub schedules: Vec<u64>,
    /// How many of them violate an invariant; each ends there.
    pub failed: u64,
    /// The shortest of those.
    pub failure: Option<Failure>,
    /// How many steps the longest schedule has.
    pub longest: usize,
    /// How many states the schedules pass through. What is the same after different beginnings goes
    /// on only once.
    pub states: u64,
    /// How many steps there are from one state to the next.
    pub steps: u64,
    /// How many histories of single nodes there are, for each of which an engine was run.
    pub runs: usize,
}

/// A schedule that violates an invariant.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Which, and how.
    pub violation: Violation,
    /// The schedule, a line for each step.
    pub steps: Vec<String>,
}

impl Outcome {
    pub(super) fn new(scenario: &Scenario) -> Self {
        Self {
            scenario: scenario.name(),
            schedules: vec![0; usize::from(scenario.faults) + 1],
            failed: 0,
            failure: None,
            longest: 0,
            states: 0,
            steps: 0,
            runs: 0,
        }
    }

    /// How many schedules there are.
    pub fn total(&self) -> u64 {
        self.schedules.iter().sum()
    }
}
