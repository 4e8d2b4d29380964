//! Outcomes: the number of schedules of a scenario, and the failures among them.

use super::scenario::Scenario;
use crate::judge::violation::Violation;

/// The outcome of all schedules of a scenario.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The name of the scenario.
    pub scenario: String,
    /// The number of schedules, by their number of faults.
    pub schedules: Vec<u64>,
    /// The number of schedules that violate an invariant. A schedule ends at its violation.
    pub failed: u64,
    /// The shortest failing schedule.
    pub failure: Option<Failure>,
    /// The number of steps of the longest schedule.
    pub longest: usize,
    /// The number of distinct states that the schedules pass through.
    pub states: u64,
    /// The number of steps between those states.
    pub steps: u64,
    /// The number of histories of single nodes, for each of which an engine ran.
    pub runs: usize,
}

/// A schedule that violates an invariant.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The violation.
    pub violation: Violation,
    /// The schedule, with a line for each step.
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

    /// Returns the number of schedules.
    pub fn total(&self) -> u64 {
        self.schedules.iter().sum()
    }
}
