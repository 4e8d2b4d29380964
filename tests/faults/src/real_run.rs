//! A run in real time: the clock of the ledger, and how late the machine itself is.

use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use psrpc::{Runtime, Time};
use psrpc_simulation::Fault;
use psrpc_simulation::judge::services::run_context::RunContext;

/// How much later than due anything may be observed on an idle machine.
const MARGIN: Duration = Duration::from_millis(50);

/// The interval at which each probe checks how late its timer fires.
const PROBE_INTERVAL: Duration = Duration::from_millis(5);

/// The number of probes, so that each thread of a runtime is likely to run one at any time.
const PROBES: usize = 4;

/// A run on a runtime. Probes measure how late timers of that runtime fire. A call may be late by as
/// much as a probe was, since the machine of a test may be busy.
pub struct RealRun {
    runtime: Arc<dyn Runtime>,
    /// When the timer of each probe is due, in nanoseconds. A stopped probe is never due.
    due: [AtomicU64; PROBES],
    /// The longest delay of any timer, in nanoseconds.
    worst: AtomicU64,
}

impl RealRun {
    /// Returns a run, and starts its probes. They end when the run is dropped.
    pub fn new(runtime: &Arc<dyn Runtime>) -> Arc<Self> {
        let never = || AtomicU64::new(u64::MAX);
        let due = std::array::from_fn(|_| never());
        let run = Arc::new(Self { runtime: Arc::clone(runtime), due, worst: AtomicU64::new(0) });
        for probe in 0..PROBES {
            let (weak, runtime) = (Arc::downgrade(&run), Arc::clone(runtime));
            runtime.clone().spawn(Box::pin(async move {
                let mut due = runtime.now().time + PROBE_INTERVAL;
                while let Some(run) = weak.upgrade() {
                    run.due[probe].store(due.as_nanos(), Ordering::Relaxed);
                    drop(run);
                    runtime.sleep_until(due).await;
                    let now = runtime.now().time;
                    let Some(run) = weak.upgrade() else { return };
                    run.worst.fetch_max(now.since(due).as_nanos() as u64, Ordering::Relaxed);
                    due = now + PROBE_INTERVAL;
                }
            }));
        }
        run
    }

    /// Returns the longest delay of a timer so far, including those that are overdue now.
    pub fn lateness(&self) -> Duration {
        let now = self.now().as_nanos();
        let overdue = self.due.iter().map(|due| now.saturating_sub(due.load(Ordering::Relaxed))).max();
        let worst = self.worst.load(Ordering::Relaxed).max(overdue.unwrap_or_default());
        Duration::from_nanos(worst)
    }
}

impl RunContext for RealRun {
    fn now(&self) -> Time {
        self.runtime.now().time
    }

    fn latest_allowed(&self, _: usize, due: Time) -> Time {
        due + MARGIN + self.lateness()
    }

    fn bus_may_lie(&self) -> bool {
        false
    }

    fn count(&self, _: Fault) {}

    fn log(&self, _: &str, _: &dyn Display) {}
}
