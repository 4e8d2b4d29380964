//! What is read off clocks and counters, and what comes of it.

use std::time::{Duration, Instant};

use alloc_tracker::{ProcessSpan, Session};
use hdrhistogram::Histogram;
use rustix::time::{ClockId, clock_gettime};

/// The moment.
#[expect(clippy::disallowed_methods, reason = "how long it takes is the question")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// The CPU time that this process has taken.
fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

/// What takes longer counts as that.
const LONGEST: Duration = Duration::from_secs(60);

/// Everything that was measured of one load.
pub(crate) struct Tally {
    latencies: Histogram<u64>,
    errors: u64,
    error: Option<String>,
    elapsed: Duration,
    cpu: Duration,
    /// What the bus's server took, where there is one of our own.
    server_cpu: Option<Duration>,
    allocations: Session,
}

impl Tally {
    pub(crate) fn new() -> Self {
        let latencies = Histogram::new_with_max(LONGEST.as_nanos() as u64, 3).expect("bounds that can be");
        let (elapsed, cpu) = (Duration::ZERO, Duration::ZERO);
        let (server_cpu, allocations) = (None, Session::new());
        Self { latencies, errors: 0, error: None, elapsed, cpu, server_cpu, allocations }
    }

    /// Notes how long one took, in nanoseconds.
    pub(crate) fn took(&mut self, nanos: u64) {
        self.latencies.saturating_record(nanos);
    }

    /// Takes over what another has.
    pub(crate) fn add(&mut self, other: Self) {
        self.latencies.add(&other.latencies).expect("all have the same bounds");
        self.failed(other.errors, other.error);
    }

    /// Notes that so many failed, and how the last did.
    pub(crate) fn failed(&mut self, count: u64, error: Option<String>) {
        self.errors += count;
        self.error = error.or(self.error.take());
    }

    pub(crate) fn errors(&self) -> u64 {
        self.errors
    }

    pub(crate) fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    pub(crate) fn count(&self) -> u64 {
        self.latencies.len()
    }

    pub(crate) fn per_second(&self) -> f64 {
        ratio(self.count() as f64, self.elapsed.as_secs_f64())
    }

    /// How long so many of a hundred took at most, in microseconds.
    pub(crate) fn percentile(&self, percent: f64) -> f64 {
        self.latencies.value_at_percentile(percent) as f64 / 1000.0
    }

    /// CPU time of this process for each, in microseconds.
    pub(crate) fn cpu_us(&self) -> f64 {
        ratio(self.cpu.as_secs_f64() * 1e6, self.count() as f64)
    }

    /// Notes how much CPU time the bus's server took.
    pub(crate) fn server_took(&mut self, cpu: Duration) {
        *self.server_cpu.get_or_insert_default() += cpu;
    }

    /// CPU time of the bus's server for each, in microseconds, where that is known.
    pub(crate) fn server_cpu_us(&self) -> Option<f64> {
        Some(ratio(self.server_cpu?.as_secs_f64() * 1e6, self.count() as f64))
    }

    /// Allocations of this process for each, those of more room for what had been allocated
    /// included.
    pub(crate) fn allocations(&self) -> f64 {
        let report = self.allocations.to_report();
        let all: u64 = report.operations().map(|(_, slices)| slices.total_allocations_count()).sum();
        ratio(all as f64, self.count() as f64)
    }
}

/// One for the other; nothing for nothing.
pub(crate) fn ratio(one: f64, other: f64) -> f64 {
    if other > 0.0 { one / other } else { 0.0 }
}

/// Runs along while something is measured.
pub(crate) struct Meter {
    began: Instant,
    cpu: Duration,
    span: ProcessSpan,
}

impl Meter {
    pub(crate) fn start(tally: &Tally) -> Self {
        let span = tally.allocations.operation("slice").measure_process();
        Self { span, cpu: cpu(), began: now() }
    }

    pub(crate) fn began(&self) -> Instant {
        self.began
    }

    pub(crate) fn stop(self, tally: &mut Tally) {
        tally.elapsed += now() - self.began;
        tally.cpu += cpu() - self.cpu;
        drop(self.span);
    }
}

/// How much memory of this process is resident, in MiB, where the system tells (Linux).
pub(crate) fn resident() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: f64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib / 1024.0)
}
