//! A run in real time: the clock of the ledger, and the stalls of the runtime and of the machine.

use std::fmt::Display;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use psrpc::{Runtime, Time};
use psrpc_simulation::Fault;
use psrpc_simulation::judge::services::run_context::RunContext;

/// The lateness that is allowed even on an idle machine.
const MARGIN: Duration = Duration::from_millis(50);

/// The interval at which each probe checks how late its timer fires.
const PROBE_INTERVAL: Duration = Duration::from_millis(5);

/// The number of probes. It is large enough for each thread of a runtime to be likely to run one at
/// any time.
const PROBES: usize = 4;

/// The shortest delay of a timer that counts as a stall. Shorter ones are within the margin.
const SHORTEST_STALL: Duration = Duration::from_millis(20);

/// The duration of the longest act that the ledger checks. Stalls that ended before an act started
/// do not delay it.
const LONGEST_ACT: Duration = Duration::from_secs(4);

/// The limit for a stall of the runtime that the machine did not cause. A longer one means that a
/// task blocked its thread and delayed others (I12).
const LONGEST_BLOCK: Duration = Duration::from_secs(1);

/// A run on a runtime. Probes measure how late timers of the runtime fire. An act may be late by as
/// much as the runtime has stalled since a few seconds before the act was due. A probe on a thread
/// of its own measures the stalls of the machine, which no task of the runtime causes.
pub struct RealRun {
    runtime: Arc<dyn Runtime>,
    probes: [Mutex<Probe>; PROBES],
    machine: Mutex<Probe>,
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
        let run = Arc::new(Self {
            runtime: Arc::clone(runtime),
            probes: Default::default(),
            machine: Mutex::default(),
        });
        let weak = Arc::downgrade(&run);
        thread::spawn(move || {
            while let Some(run) = weak.upgrade() {
                lock(&run.machine).due = Some(run.now() + PROBE_INTERVAL);
                drop(run);
                thread::sleep(PROBE_INTERVAL);
                let Some(run) = weak.upgrade() else { return };
                lock(&run.machine).fired(run.now());
            }
        });
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

    /// Returns how long the runtime has stalled since a time, including a stall that has not ended.
    pub fn stalled_since(&self, since: Time) -> Duration {
        let now = self.now();
        let stalled = |probe: &Mutex<Probe>| lock(probe).stalled_since(since, now);
        self.probes.iter().map(stalled).max().unwrap_or_default()
    }

    /// Checks that no task blocked a thread of the runtime for long: each stall of the runtime was
    /// short, or the machine stalled for at least half of it (I12).
    ///
    /// # Errors
    ///
    /// Returns an error with the length of a stall that the machine did not cause.
    pub fn check_blocks(&self) -> Result<(), String> {
        let machine = lock(&self.machine);
        let is_unexplained = |(end, length): &(Time, Duration)| {
            let start = Time::ZERO + end.since(Time::ZERO + *length);
            *length > LONGEST_BLOCK && machine.stalled_since(start, *end) < *length / 2
        };
        let stalls = self.probes.iter().flat_map(|probe| lock(probe).stalls.clone());
        match stalls.into_iter().find(is_unexplained) {
            Some((_, length)) => Err(format!("a task blocked a thread of the runtime for {length:?}")),
            None => Ok(()),
        }
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
    #[test]
    fn a_block_is_a_stall_of_the_runtime_without_one_of_the_machine() {
        let second = Duration::from_secs(1);
        let at = |seconds: u32| Time::ZERO + second * seconds;
        let executor = crate::runtime::RuntimeName::Tokio.start();
        let run = RealRun::new(executor.runtime());
        let stalls = |probe: &Mutex<Probe>, stalls| lock(probe).stalls = stalls;
        assert_eq!(run.check_blocks(), Ok(()));
        stalls(&run.probes[0], vec![(at(1000), 3 * second)]);
        let blocked = "a task blocked a thread of the runtime for 3s";
        assert_eq!(run.check_blocks(), Err(blocked.to_owned()));
        stalls(&run.machine, vec![(at(999), 2 * second)]);
        assert_eq!(run.check_blocks(), Ok(()));
    }
}
