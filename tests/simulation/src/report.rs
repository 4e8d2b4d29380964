//! Reports: of one seed, and of many together.

use std::collections::BTreeMap;

use crate::check::Violation;
use crate::fault::{Fault, FaultCounts};
use crate::trace::TraceHash;

/// How one seed went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// How many calls were made.
    pub calls: u64,
    /// How many of them were made after the faults had stopped, and had to succeed.
    pub fresh_calls: u64,
    /// How often calls ended in each way.
    pub outcomes: BTreeMap<&'static str, u64>,
    /// How often each kind of fault happened.
    pub faults: FaultCounts,
    /// A hash of all that happened.
    pub trace_hash: u64,
    /// The invariant that was violated, if one was.
    pub violation: Option<Violation>,
}

/// How many seeds went.
#[derive(Clone, Debug)]
pub struct Summary {
    /// How many seeds were run.
    pub seeds: u64,
    /// The seeds that failed.
    pub failed: Vec<u64>,
    /// How many calls were made.
    pub calls: u64,
    /// How many of them were made after the faults had stopped, and had to succeed.
    pub fresh_calls: u64,
    /// How often calls ended in each way.
    pub outcomes: BTreeMap<&'static str, u64>,
    /// How often each kind of fault happened.
    pub faults: FaultCounts,
    /// A hash of the traces of all seeds, in order.
    pub trace_hash: u64,
}

impl Summary {
    /// A summary of nothing.
    pub fn new() -> Self {
        Self {
            seeds: 0,
            failed: Vec::new(),
            calls: 0,
            fresh_calls: 0,
            outcomes: BTreeMap::new(),
            faults: FaultCounts::default(),
            trace_hash: TraceHash::new().value(),
        }
    }

    /// Adds a seed.
    pub fn add(&mut self, report: &Report) {
        self.seeds += 1;
        self.calls += report.calls;
        self.fresh_calls += report.fresh_calls;
        for (outcome, count) in &report.outcomes {
            *self.outcomes.entry(outcome).or_default() += count;
        }
        self.faults.add(&report.faults);
        self.trace_hash = TraceHash::chain(self.trace_hash, report.trace_hash);
        if report.violation.is_some() {
            self.failed.push(report.seed);
        }
    }

    /// The kinds of fault that happened less often than that, so that too little was shown of them.
    pub fn rarer_than(&self, enough: u64) -> Vec<(Fault, u64)> {
        self.faults.iter().filter(|(_, count)| *count < enough).collect()
    }
}

impl Default for Summary {
    fn default() -> Self {
        Self::new()
    }
}
