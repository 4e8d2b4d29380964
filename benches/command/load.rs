//! A load: something that is done again and again, by so many workers at a time, for a slice of
//! time.

use std::any::Any;
use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::{sleep_until, timeout};

use crate::BenchError;
use crate::measure::{Meter, Tally, now};

/// How much longer than its slice a load may take.
const PATIENCE: Duration = Duration::from_secs(15);

pub(crate) type Slice<'a> = Pin<Box<dyn Future<Output = Result<(), BenchError>> + Send + 'a>>;

/// When a worker does it the next time.
#[derive(Clone, Copy)]
pub(crate) enum Pace {
    /// At once.
    Full,
    /// So long after it began the last time, or at once if that is past.
    Every(Duration),
}

/// Something that is done again and again.
pub(crate) trait Load: Send {
    /// Does it for a slice of time, and whatever is under way then to its end.
    fn slice<'a>(&'a mut self, length: Duration, pace: Pace, tally: &'a mut Tally) -> Slice<'a>;
}

/// What a worker does.
pub(crate) trait Unit: Send + 'static {
    /// How many are done at once.
    fn at_once(&self) -> u32 {
        1
    }

    /// Does it.
    fn once(&mut self) -> impl Future<Output = Result<(), BenchError>> + Send;
}

/// Workers, each a task of its own.
pub(crate) struct Workers<U> {
    workers: Vec<Worker<U>>,
    /// What they need to be there.
    _needed: Box<dyn Any + Send>,
}

struct Worker<U> {
    unit: U,
    /// In nanoseconds.
    took: Vec<u64>,
    failed: u64,
    error: Option<String>,
}

impl<U: Unit> Workers<U> {
    pub(crate) fn load(units: Vec<U>, needed: impl Any + Send) -> Box<dyn Load> {
        let worker = |unit| Worker { unit, took: Vec::new(), failed: 0, error: None };
        Box::new(Self { workers: units.into_iter().map(worker).collect(), _needed: Box::new(needed) })
    }
}

impl<U: Unit> Load for Workers<U> {
    fn slice<'a>(&'a mut self, length: Duration, pace: Pace, tally: &'a mut Tally) -> Slice<'a> {
        Box::pin(async move {
            // The tasks are there before it counts.
            let (begin, begun) = watch::channel(None);
            let work = |mut worker: Worker<U>| {
                let mut begun = begun.clone();
                tokio::spawn(async move {
                    let end = begun.wait_for(Option::is_some).await.ok().and_then(|end| *end);
                    if let Some(end) = end {
                        worker.work_until(end, pace).await;
                    }
                    worker
                })
            };
            let tasks: Vec<_> = self.workers.drain(..).map(work).collect();
            self.workers.reserve(tasks.len());
            let meter = Meter::start(tally);
            begin.send_replace(Some(meter.began() + length));
            for task in tasks {
                self.workers
                    .push(timeout(length + PATIENCE, task).await.map_err(|_| "nothing comes any more")??);
            }
            meter.stop(tally);
            for worker in &mut self.workers {
                worker.took.drain(..).for_each(|nanos| tally.took(nanos));
                tally.failed(std::mem::take(&mut worker.failed), worker.error.take());
            }
            Ok(())
        })
    }
}

impl<U: Unit> Worker<U> {
    async fn work_until(&mut self, end: Instant, pace: Pace) {
        let at_once = self.unit.at_once();
        let mut begun = now();
        while begun < end {
            let outcome = self.unit.once().await;
            let done = now();
            match outcome {
                Ok(()) => {
                    let nanos = (done - begun).as_nanos() as u64 / u64::from(at_once);
                    (0..at_once).for_each(|_| self.took.push(nanos));
                }
                Err(error) => {
                    self.failed += 1;
                    self.error = Some(error.to_string());
                    // Others are to run where nothing waits before it fails.
                    tokio::task::yield_now().await;
                }
            }
            begun = match pace {
                Pace::Full => done,
                Pace::Every(time) => {
                    sleep_until((begun + time).into()).await;
                    now()
                }
            };
        }
    }
}
