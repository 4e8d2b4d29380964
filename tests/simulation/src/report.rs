//! Reports of one seed and of many, and the comparison of two runs of a seed.

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::fault::{Fault, FaultCounts};
use crate::judge::violation::{Checked, Invariant, Violation};
use crate::trace::TraceHash;

/// The result of one seed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// The number of calls.
    pub calls: u64,
    /// The number of calls made after the faults had stopped, which had to succeed.
    pub fresh_calls: u64,
    /// The number of calls by how they ended.
    pub outcomes: BTreeMap<&'static str, u64>,
    /// The number of faults by kind.
    pub faults: FaultCounts,
    /// The hash of the trace.
    pub trace_hash: u64,
    /// The first violated invariant, if any.
    pub violation: Option<Violation>,
}

impl Report {
    /// Adds the report of another part of the same seed.
    pub(crate) fn merge(mut self, other: &Report) -> Self {
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

    /// Runs `run` and returns its report, or one that reports its panic.
    pub(crate) fn catch_panic(seed: u64, run: impl FnOnce() -> Self) -> Self {
        catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
            let (outcomes, faults) = (BTreeMap::new(), FaultCounts::default());
            let violation = Some(panic_violation(&*panic));
            Self { seed, calls: 0, fresh_calls: 0, outcomes, faults, trace_hash: 0, violation }
        })
    }
}

/// Checks that two runs of a seed have the same trace.
///
/// # Errors
///
/// Fails if their traces differ.
pub fn same_trace(first: &Report, second: &Report) -> Checked {
    match (first.trace_hash, second.trace_hash) {
        (first, second) if first == second => Ok(()),
        (first, second) => Invariant::I17.violated(format!("trace {first:016x}, then {second:016x}")),
    }
}

/// Returns the violation for a panic.
pub(crate) fn panic_violation(panic: &dyn Any) -> Violation {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("a panic");
    Violation { invariant: Invariant::I11, what: format!("panic: {text}") }
}

/// The result of many seeds.
#[derive(Clone, Debug)]
pub struct Summary {
    /// The number of seeds.
    pub seeds: u64,
    /// The seeds that failed.
    pub failed: Vec<u64>,
    /// The number of calls.
    pub calls: u64,
    /// The number of calls made after the faults had stopped, which had to succeed.
    pub fresh_calls: u64,
    /// The number of calls by how they ended.
    pub outcomes: BTreeMap<&'static str, u64>,
    /// The number of faults by kind.
    pub faults: FaultCounts,
    /// The hash of the traces of all seeds, in order.
    pub trace_hash: u64,
}

impl Summary {
    /// Creates an empty summary.
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

    /// Adds the report of a seed.
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

    /// Returns the kinds of fault that happened fewer than `enough` times, with their counts.
    pub fn rarer_than(&self, enough: u64) -> Vec<(Fault, u64)> {
        self.faults.iter().filter(|(_, count)| *count < enough).collect()
    }
}

impl Default for Summary {
    fn default() -> Self {
        Self::new()
    }
}
