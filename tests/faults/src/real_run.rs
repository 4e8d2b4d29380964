//! A run in real time: the clock of the ledger, and how late the machine itself is.

use std::fmt::Display;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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

/// The shortest delay of a timer that counts as a stall. Shorter ones are within the margin.
const SHORTEST_STALL: Duration = Duration::from_millis(20);

/// No act that the ledger checks takes longer, so earlier stalls do not delay it.
const LONGEST_ACT: Duration = Duration::from_secs(4);

/// A run on a runtime. Probes measure the stalls of the machine: how late timers of the runtime
/// fire. An act may be late by as much as the machine stalled during it.
pub struct RealRun {
    runtime: Arc<dyn Runtime>,
    probes: [Mutex<Probe>; PROBES],
}

#[derive(Default)]
struct Probe {
    /// When its timer is due, if it waits for one.
    due: Option<Time>,
    /// The ends and the lengths of the stalls.
    stalls: Vec<(Time, Duration)>,
}

impl RealRun {
    /// Returns a run, and starts its probes. They end when the run is dropped.
    pub fn new(runtime: &Arc<dyn Runtime>) -> Arc<Self> {
        let run = Arc::new(Self { runtime: Arc::clone(runtime), probes: Default::default() });
        for number in 0..PROBES {
            let (weak, runtime) = (Arc::downgrade(&run), Arc::clone(runtime));
            run.runtime.spawn(Box::pin(async move {
                while let Some(run) = weak.upgrade() {
                    let due = runtime.now().time + PROBE_INTERVAL;
                    lock(&run.probes[number]).due = Some(due);
                    drop(run);
                    runtime.sleep_until(due).await;
                    let Some(run) = weak.upgrade() else { return };
                    lock(&run.probes[number]).fired(runtime.now().time);
                }
            }));
        }
        run
    }

    /// Returns how long the machine stalled after a time, including a stall that has not ended.
    pub fn stalled_since(&self, since: Time) -> Duration {
        let now = self.now();
        let stalled = |probe: &Mutex<Probe>| lock(probe).stalled_since(since, now);
        self.probes.iter().map(stalled).max().unwrap_or_default()
    }

    /// Returns the longest stall so far.
    pub fn longest_stall(&self) -> Duration {
        let longest = |probe: &Mutex<Probe>| lock(probe).stalls.iter().map(|(_, length)| *length).max();
        self.probes.iter().filter_map(longest).max().unwrap_or_default()
    }
}

impl Probe {
    fn fired(&mut self, now: Time) {
        let stall = self.stall(now);
        self.due = None;
        self.stalls.extend(stall.map(|length| (now, length)));
    }

    /// Returns how late the timer is, if that is a stall.
    fn stall(&self, now: Time) -> Option<Duration> {
        self.due.map(|due| now.since(due)).filter(|late| *late >= SHORTEST_STALL)
    }

    fn stalled_since(&self, since: Time, now: Time) -> Duration {
        let ended = self.stalls.iter().filter(|(end, _)| *end >= since).map(|(_, length)| *length);
        ended.chain(self.stall(now)).sum()
    }
}

fn lock(probe: &Mutex<Probe>) -> MutexGuard<'_, Probe> {
    probe.lock().unwrap_or_else(PoisonError::into_inner)
}

impl RunContext for RealRun {
    fn now(&self) -> Time {
        self.runtime.now().time
    }

    fn latest_allowed(&self, _: usize, due: Time) -> Time {
        let earliest = Time::ZERO + due.since(Time::ZERO + LONGEST_ACT);
        due + MARGIN + self.stalled_since(earliest)
    }

    fn bus_may_lie(&self) -> bool {
        false
    }

    fn count(&self, _: Fault) {}

    fn log(&self, _: &str, _: &dyn Display) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stalls_after_a_time_add_up_and_one_that_lasts_counts() {
        let at = |millis| Time::ZERO + Duration::from_millis(millis);
        let mut probe = Probe::default();
        for (due, fired) in [(10, 110), (200, 205), (300, 500)] {
            probe.due = Some(at(due));
            probe.fired(at(fired));
        }
        assert_eq!(probe.stalled_since(at(0), at(600)), Duration::from_millis(300));
        assert_eq!(probe.stalled_since(at(400), at(600)), Duration::from_millis(200));
        probe.due = Some(at(600));
        assert_eq!(probe.stalled_since(at(550), at(700)), Duration::from_millis(100));
    }
}
