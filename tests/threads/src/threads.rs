//! The runtime of the scenarios, whose tasks are scheduled by shuttle.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use psrpc::proto::Seed;
use psrpc::{Now, Runtime, Task, Time, WallTime};
use shuttle::future::{JoinHandle, block_on};

use crate::Clock;

/// The runtime of one run of a scenario. Shuttle schedules each spawned task like a thread.
#[derive(Clone, Default)]
pub struct Threads {
    clock: Clock,
    shared: Arc<Mutex<Shared>>,
}

#[derive(Default)]
struct Shared {
    seeds: u8,
    spawned: Vec<JoinHandle<()>>,
}

impl Threads {
    /// Returns the clock.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Waits until every task has ended. A task that never ends causes a deadlock.
    pub fn join(&self) {
        loop {
            let spawned = std::mem::take(&mut self.lock().spawned);
            if spawned.is_empty() {
                return;
            }
            spawned.into_iter().for_each(|task| block_on(task).expect("no task is aborted"));
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Runtime for Threads {
    fn now(&self) -> Now {
        let time = self.clock.now();
        let wall = WallTime::from_unix_nanos(0) + time.since(Time::ZERO);
        Now { time, wall: wall + Duration::from_secs(1_700_000_000) }
    }

    fn seed(&self) -> Seed {
        let mut shared = self.lock();
        shared.seeds += 1;
        [shared.seeds; 32]
    }

    fn sleep_until(&self, deadline: Time) -> Task {
        Box::pin(self.clock.sleep_until(deadline))
    }

    fn spawn(&self, task: Task) {
        let task = shuttle::future::spawn(task);
        self.lock().spawned.push(task);
    }
}
