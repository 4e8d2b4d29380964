//! The simulated run that a ledger records, and how late its nodes may be.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use psrpc::Time;

use super::executor::Shared;
use crate::fault::Fault;
use crate::judge::services::run_context::RunContext;

/// A simulated run.
pub(super) struct SimulatedRun {
    shared: Arc<Shared>,
    stalls: Mutex<BTreeMap<usize, Stall>>,
}

/// How late a node may be.
#[derive(Clone, Copy, Default)]
struct Stall {
    until: Time,
    step: Duration,
}

impl SimulatedRun {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, stalls: Mutex::default() }
    }

    fn stalls(&self) -> MutexGuard<'_, BTreeMap<usize, Stall>> {
        self.stalls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a node is paused until a time.
    pub(super) fn node_paused(&self, node: usize, until: Time) {
        let mut stalls = self.stalls();
        let stall = stalls.entry(node).or_default();
        stall.until = stall.until.max(until);
    }

    /// Notes how long each step of a node's tasks takes from now on.
    pub(super) fn node_slowed(&self, node: usize, step: Duration) {
        let now = self.now();
        let mut stalls = self.stalls();
        let stall = stalls.entry(node).or_default();
        // Its tasks may stay late by the old step time for a while.
        stall.until = stall.until.max(now + 4 * stall.step);
        stall.step = step;
    }
}

impl RunContext for SimulatedRun {
    fn now(&self) -> Time {
        self.shared.lock().scene.now()
    }

    fn latest_allowed(&self, node: usize, due: Time) -> Time {
        let Stall { until, step } = self.stalls().get(&node).copied().unwrap_or_default();
        due.max(until) + 4 * step
    }

    fn bus_may_lie(&self) -> bool {
        self.shared.lock().scene.faults.counts().of(Fault::FalsePublishError) > 0
    }

    fn count(&self, fault: Fault) {
        self.shared.lock().scene.faults.count(fault);
    }

    fn log(&self, source: &str, text: &dyn Display) {
        self.shared.lock().scene.log(source, text);
    }
}
