//! Clocks, counters and the figures computed from them.

use std::time::{Duration, Instant};

use alloc_tracker::{ProcessSpan, Session};
use hdrhistogram::Histogram;
use rustix::time::{ClockId, clock_gettime};

/// Returns the current time.
#[expect(clippy::disallowed_methods, reason = "this program measures time")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Returns the CPU time used by this process.
fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

/// The upper bound of latencies; longer ones are recorded as this.
const LONGEST: Duration = Duration::from_secs(60);

/// The measurements of one load.
pub(crate) struct Tally {
    latencies: Histogram<u64>,
    errors: u64,
    error: Option<String>,
    elapsed: Duration,
    cpu: Duration,
    /// The CPU time of the bus's server, if this command started it.
    server_cpu: Option<Duration>,
    allocations: Session,
}

impl Tally {
    pub(crate) fn new() -> Self {
        let latencies = Histogram::new_with_max(LONGEST.as_nanos() as u64, 3).expect("the bounds are valid");
        let (elapsed, cpu) = (Duration::ZERO, Duration::ZERO);
        let (server_cpu, allocations) = (None, Session::new());
        Self { latencies, errors: 0, error: None, elapsed, cpu, server_cpu, allocations }
    }

    /// Records the latency of one operation, in nanoseconds.
    pub(crate) fn record(&mut self, nanos: u64) {
        self.latencies.saturating_record(nanos);
    }

    /// Adds the latencies and errors of another tally.
    pub(crate) fn add(&mut self, other: Self) {
        self.latencies.add(&other.latencies).expect("all have the same bounds");
        self.failed(other.errors, other.error);
    }

    /// Records failures, and the last error.
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

    /// Returns a percentile of the latency, in microseconds.
    pub(crate) fn percentile(&self, percent: f64) -> f64 {
        self.latencies.value_at_percentile(percent) as f64 / 1000.0
    }

    /// Returns the CPU time of this process per operation, in microseconds.
    pub(crate) fn cpu_us(&self) -> f64 {
        ratio(self.cpu.as_secs_f64() * 1e6, self.count() as f64)
    }

    /// Records CPU time of the bus's server.
    pub(crate) fn record_server_cpu(&mut self, cpu: Duration) {
        *self.server_cpu.get_or_insert_default() += cpu;
    }

    /// Returns the CPU time of the bus's server per operation in microseconds, if known.
    pub(crate) fn server_cpu_us(&self) -> Option<f64> {
        Some(ratio(self.server_cpu?.as_secs_f64() * 1e6, self.count() as f64))
    }

    /// Returns the allocations of this process per operation, including reallocations.
    pub(crate) fn allocations(&self) -> f64 {
        let report = self.allocations.to_report();
        let all: u64 = report.operations().map(|(_, slices)| slices.total_allocations_count()).sum();
        ratio(all as f64, self.count() as f64)
    }
}

/// Divides two numbers; returns 0 if the divisor is 0.
pub(crate) fn ratio(one: f64, other: f64) -> f64 {
    if other > 0.0 { one / other } else { 0.0 }
}

/// A running measurement.
pub(crate) struct Meter {
    started: Instant,
    cpu: Duration,
    span: ProcessSpan,
}

impl Meter {
    pub(crate) fn start(tally: &Tally) -> Self {
        let span = tally.allocations.operation("slice").measure_process();
        Self { span, cpu: cpu(), started: now() }
    }

    pub(crate) fn started_at(&self) -> Instant {
        self.started
    }

    pub(crate) fn stop(self, tally: &mut Tally) {
        tally.elapsed += now() - self.started;
        tally.cpu += cpu() - self.cpu;
        drop(self.span);
    }
}

/// Returns the resident memory of this process in MiB, if the system reports it (Linux).
pub(crate) fn resident() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: f64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib / 1024.0)
}
