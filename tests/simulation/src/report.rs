//! Reports: of one seed, of many together, and whether two runs of a seed went the same way.

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::fault::{Fault, FaultCounts};
use crate::judge::violation::{Checked, Invariant, Violation};
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

impl Report {
    /// The same seed with another part of it.
    pub(crate) fn and(mut self, other: &Report) -> Self {
        for (outcome, count) in &other.outcomes {
            *self.outcomes.entry(outcome).or_default() += count;
        }
        self.faults.add(&other.faults);
        Self {
            calls: self.calls + other.calls,
            fresh_calls: self.fresh_calls + other.fresh_calls,
            trace_hash: TraceHash::chain(self.trace_hash, other.trace_hash),
            violation: self.violation.or_else(|| other.violation.clone()),
            ..self
        }
    }

    /// What a run reports, or that something panicked in it.
    pub(crate) fn catching(seed: u64, run: impl FnOnce() -> Self) -> Self {
        catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
            let (outcomes, faults) = (BTreeMap::new(), FaultCounts::default());
            let violation = Some(of_panic(&*panic));
            Self { seed, calls: 0, fresh_calls: 0, outcomes, faults, trace_hash: 0, violation }
        })
    }
}

/// Checks that two runs of a seed went the same way.
///
/// # Errors
///
/// When their traces differ.
pub fn same_trace(first: &Report, second: &Report) -> Checked {
    match (first.trace_hash, second.trace_hash) {
        (first, second) if first == second => Ok(()),
        (first, second) => Invariant::I17.violated(format!("trace {first:016x}, then {second:016x}")),
    }
}

/// That something panicked.
pub(crate) fn of_panic(panic: &dyn Any) -> Violation {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("a panic");
    Violation { invariant: Invariant::I11, what: format!("panic: {text}") }
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
