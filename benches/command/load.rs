//! A load: a unit of work that a number of workers repeat for a time slice.

use std::any::Any;
use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::{sleep_until, timeout};

use crate::BenchError;
use crate::measure::{Meter, Tally, now};

/// The time by which a load may exceed its slice.
const GRACE_PERIOD: Duration = Duration::from_secs(15);

pub(crate) type Slice<'a> = Pin<Box<dyn Future<Output = Result<(), BenchError>> + Send + 'a>>;

/// How often a worker starts its unit of work.
#[derive(Clone, Copy)]
pub(crate) enum Pace {
    /// Whenever the previous unit has ended.
    Full,
    /// This long after the previous start, or when the previous unit has ended, whichever is later.
    Every(Duration),
}

/// Work that is repeated.
pub(crate) trait Load: Send {
    /// Repeats the work for a time slice. Work in flight at the end of the slice is completed.
    fn slice<'a>(&'a mut self, length: Duration, pace: Pace, tally: &'a mut Tally) -> Slice<'a>;
}

/// The work of a single worker.
pub(crate) trait Unit: Send + 'static {
    /// Returns the number of operations in one unit.
    fn at_once(&self) -> u32 {
        1
    }

    /// Runs one unit.
    fn once(&mut self) -> impl Future<Output = Result<(), BenchError>> + Send;
}

/// Workers, each of which runs as a task.
pub(crate) struct Workers<U> {
    workers: Vec<Worker<U>>,
    /// Values that the workers depend on, such as servers.
    _dependencies: Box<dyn Any + Send>,
}

struct Worker<U> {
    unit: U,
    /// The durations of the units, in nanoseconds.
    durations: Vec<u64>,
    failed: u64,
    error: Option<String>,
}

impl<U: Unit> Workers<U> {
    pub(crate) fn load(units: Vec<U>, dependencies: impl Any + Send) -> Box<dyn Load> {
        let worker = |unit| Worker { unit, durations: Vec::new(), failed: 0, error: None };
        Box::new(Self {
            workers: units.into_iter().map(worker).collect(),
            _dependencies: Box::new(dependencies),
        })
    }
}

impl<U: Unit> Load for Workers<U> {
    fn slice<'a>(&'a mut self, length: Duration, pace: Pace, tally: &'a mut Tally) -> Slice<'a> {
        Box::pin(async move {
            // The tasks start before the measurement does.
            let (start, started) = watch::channel(None);
            let work = |mut worker: Worker<U>| {
                let mut started = started.clone();
                tokio::spawn(async move {
                    let end = started.wait_for(Option::is_some).await.ok().and_then(|end| *end);
                    if let Some(end) = end {
                        worker.work_until(end, pace).await;
                    }
                    worker
                })
            };
            let tasks: Vec<_> = self.workers.drain(..).map(work).collect();
            self.workers.reserve(tasks.len());
            let meter = Meter::start(tally);
            start.send_replace(Some(meter.started_at() + length));
            for task in tasks {
                self.workers.push(
                    timeout(length + GRACE_PERIOD, task)
                        .await
                        .map_err(|_| "the workers did not finish in time")??,
                );
            }
            meter.stop(tally);
            for worker in &mut self.workers {
                worker.durations.drain(..).for_each(|nanos| tally.record(nanos));
                tally.failed(std::mem::take(&mut worker.failed), worker.error.take());
            }
            Ok(())
        })
    }
}

impl<U: Unit> Worker<U> {
    async fn work_until(&mut self, end: Instant, pace: Pace) {
        let at_once = self.unit.at_once();
        let mut started = now();
        while started < end {
            let outcome = self.unit.once().await;
            let done = now();
            match outcome {
                Ok(()) => {
                    let nanos = (done - started).as_nanos() as u64 / u64::from(at_once);
                    (0..at_once).for_each(|_| self.durations.push(nanos));
                }
                Err(error) => {
                    self.failed += 1;
                    self.error = Some(error.to_string());
                    // Lets other tasks run if the unit failed without waiting.
                    tokio::task::yield_now().await;
                }
            }
            started = match pace {
                Pace::Full => done,
                Pace::Every(time) => {
                    sleep_until((started + time).into()).await;
                    now()
                }
            };
        }
    }
}
