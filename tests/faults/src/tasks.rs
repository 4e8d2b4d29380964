//! The tasks of a fleet, by name, so that those that hang can be named.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use psrpc::Runtime;

/// Spawns tasks and waits for their ends.
#[derive(Clone)]
pub struct Tasks {
    runtime: Arc<dyn Runtime>,
    running: Arc<Running>,
}

#[derive(Default)]
struct Running {
    names: Mutex<Names>,
    ended: Condvar,
}

#[derive(Default)]
struct Names {
    last: u64,
    names: BTreeMap<u64, String>,
}

impl Tasks {
    /// Returns a set without tasks.
    pub fn new(runtime: &Arc<dyn Runtime>) -> Self {
        Self { runtime: Arc::clone(runtime), running: Arc::default() }
    }

    /// Spawns a task.
    pub fn spawn(&self, name: impl Into<String>, task: impl Future<Output = ()> + Send + 'static) {
        let number = {
            let mut names = self.running.lock();
            names.last += 1;
            let number = names.last;
            names.names.insert(number, name.into());
            number
        };
        let task_end = TaskEnd(Arc::clone(&self.running), number);
        self.runtime.spawn(Box::pin(async move {
            let _task_end = task_end;
            task.await;
        }));
    }

    /// Waits until all tasks have ended.
    ///
    /// # Errors
    ///
    /// Returns the names of those that have not ended within `limit`.
    pub fn wait(&self, limit: Duration) -> Result<(), Vec<String>> {
        let is_running = |names: &mut Names| !names.names.is_empty();
        let waited = self.running.ended.wait_timeout_while(self.running.lock(), limit, is_running);
        let (names, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        match timeout.timed_out() {
            true => Err(names.names.values().cloned().collect()),
            false => Ok(()),
        }
    }
}

impl Running {
    fn lock(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Removes a task when it ends or panics, or when its runtime drops it.
struct TaskEnd(Arc<Running>, u64);

impl Drop for TaskEnd {
    fn drop(&mut self) {
        self.0.lock().names.remove(&self.1);
        self.0.ended.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use psrpc_smol::SmolRuntime;

    use super::*;

    #[test]
    fn a_task_that_hangs_is_named_and_one_that_ends_is_not() {
        let runtime: Arc<dyn Runtime> = Arc::new(SmolRuntime);
        let tasks = Tasks::new(&runtime);
        tasks.spawn("a short one", async {});
        assert_eq!(tasks.wait(Duration::from_secs(20)), Ok(()));
        tasks.spawn("a short one", async {});
        tasks.spawn("one that hangs", std::future::pending());
        let hung = loop {
            match tasks.wait(Duration::from_millis(1)) {
                Err(names) if names.len() == 1 => break names,
                _ => std::thread::yield_now(),
            }
        };
        assert_eq!(hung, ["one that hangs"]);
    }
}
