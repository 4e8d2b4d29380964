//! A single-threaded executor with virtual time. It shows that psrpc depends on no particular
//! runtime, and lets cases wait without real time passing.

use std::collections::{BTreeMap, VecDeque};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use psrpc::proto::Seed;
use psrpc::{Now, Runtime, Task, Time, WallTime};

use super::Host;

/// A single-threaded executor whose clock jumps to the next deadline whenever no task is ready.
#[derive(Clone, Default)]
pub struct Solo(Arc<Mutex<SoloState>>);

#[derive(Default)]
struct SoloState {
    ready: VecDeque<Arc<Job>>,
    /// Keyed by deadline and by a unique number.
    sleepers: BTreeMap<(Time, u64), Waker>,
    counter: u64,
    now: Time,
}

/// A task. Its future is dropped once it is done.
struct Job {
    future: Mutex<Option<Pin<Box<dyn Future<Output = ()> + Send>>>>,
    solo: Solo,
}

impl Wake for Job {
    fn wake(self: Arc<Self>) {
        self.solo.lock().ready.push_back(Arc::clone(&self));
    }
}

/// Waker of the future that `block_on` runs. The flag is checked after every task.
struct Woken(Mutex<bool>);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
    }
}

impl Solo {
    /// Creates an executor whose time is zero.
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, SoloState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs one ready task, or else advances the time to the next deadline. Returns `false` if
    /// there is neither.
    fn step(&self) -> bool {
        let job = self.lock().ready.pop_front();
        if let Some(job) = job {
            let waker = Waker::from(Arc::clone(&job));
            let mut future = job.future.lock().unwrap_or_else(PoisonError::into_inner);
            if future.as_mut().is_some_and(|f| f.as_mut().poll(&mut Context::from_waker(&waker)).is_ready()) {
                *future = None;
            }
            return true;
        }
        let mut state = self.lock();
        let Some(((deadline, _), waker)) = state.sleepers.pop_first() else { return false };
        state.now = state.now.max(deadline);
        drop(state);
        waker.wake();
        true
    }
}

impl Runtime for Solo {
    fn now(&self) -> Now {
        const EPOCH: WallTime = WallTime::from_unix_nanos(1_795_345_422_000_000_000);
        let time = self.lock().now;
        Now { time, wall: EPOCH + time.since(Time::ZERO) }
    }

    fn seed(&self) -> Seed {
        let mut state = self.lock();
        state.counter += 1;
        let mut seed = Seed::default();
        seed[..8].copy_from_slice(&state.counter.to_le_bytes());
        seed
    }

    fn sleep_until(&self, deadline: Time) -> Task {
        let solo = self.clone();
        Box::pin(poll_fn(move |cx| {
            let mut state = solo.lock();
            if state.now >= deadline {
                return Poll::Ready(());
            }
            state.counter += 1;
            let key = (deadline, state.counter);
            state.sleepers.insert(key, cx.waker().clone());
            Poll::Pending
        }))
    }

    fn spawn(&self, task: Task) {
        let job = Job { future: Mutex::new(Some(task)), solo: self.clone() };
        self.lock().ready.push_back(Arc::new(job));
    }
}

impl Host for Solo {
    fn runtime(&self) -> Arc<dyn Runtime> {
        Arc::new(self.clone())
    }

    fn block_on(&self, mut future: Pin<Box<dyn Future<Output = ()> + '_>>) {
        let woken = Arc::new(Woken(Mutex::new(true)));
        let waker = Waker::from(Arc::clone(&woken));
        loop {
            let poll = std::mem::take(&mut *woken.0.lock().unwrap_or_else(PoisonError::into_inner));
            if poll && future.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
                return;
            }
            let idle = !poll && !self.step();
            assert!(!idle, "deadlock: the future is pending, and no task or timer is left");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const MILLISECOND: Duration = Duration::from_millis(1);

    #[test]
    fn time_passes_when_nothing_else_is_to_be_done() {
        let solo = Solo::new();
        let order = Arc::new(Mutex::new(Vec::new()));
        for (name, after) in [("late", 3000), ("early", 1000)] {
            let (sleep, order) = (solo.sleep_until(Time::ZERO + after * MILLISECOND), Arc::clone(&order));
            solo.spawn(Box::pin(async move {
                sleep.await;
                order.lock().unwrap().push(name);
            }));
        }
        let end = solo.sleep_until(Time::ZERO + 5000 * MILLISECOND);
        solo.block_on(Box::pin(end));
        assert_eq!(*order.lock().unwrap(), ["early", "late"]);
        assert_eq!(solo.now().time, Time::ZERO + 5000 * MILLISECOND);
    }
}
