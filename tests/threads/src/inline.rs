//! A runtime whose wake-ups run the woken task at once, on the waking thread.

use std::sync::Arc;
use std::task::{Context, Wake, Waker};

use psrpc::proto::Seed;
use psrpc::{Now, Runtime, Task, Time};
use shuttle::sync::Mutex;

use crate::Threads;

/// A runtime that runs a task within the call that wakes or spawns it. If that call holds a lock
/// that the task takes, the thread deadlocks.
#[derive(Clone, Default)]
pub struct InlineRuntime(Threads);

impl Runtime for InlineRuntime {
    fn now(&self) -> Now {
        self.0.now()
    }

    fn seed(&self) -> Seed {
        self.0.seed()
    }

    fn sleep_until(&self, deadline: Time) -> Task {
        self.0.sleep_until(deadline)
    }

    fn spawn(&self, task: Task) {
        Arc::new(InlineTask(Mutex::new(Slot { task: Some(task), woken: false }))).wake();
    }
}

struct InlineTask(Mutex<Slot>);

struct Slot {
    /// `None` while the task runs, and after it has ended.
    task: Option<Task>,
    /// Whether the task was woken while it ran.
    woken: bool,
}

impl Wake for InlineTask {
    fn wake(self: Arc<Self>) {
        let mut task = {
            let mut slot = self.0.lock().unwrap();
            let Some(task) = slot.task.take() else {
                slot.woken = true;
                return;
            };
            task
        };
        let waker = Waker::from(Arc::clone(&self));
        while task.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
            let mut slot = self.0.lock().unwrap();
            if !std::mem::take(&mut slot.woken) {
                slot.task = Some(task);
                return;
            }
        }
    }
}
