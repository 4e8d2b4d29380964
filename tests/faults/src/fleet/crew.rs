//! The state that all users of a fleet share.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use psrpc::{Runtime, Time};
use psrpc_simulation::judge::services::ledger::Ledger;

use crate::progress::Progress;
use crate::tasks::Tasks;
use crate::updates::Updates;

/// The runtime of a fleet, its tasks, and the records of its users' acts.
#[derive(Clone)]
pub struct Crew {
    /// The runtime of all clients and servers.
    pub runtime: Arc<dyn Runtime>,
    /// The tasks of all users, which end after the fleet was stopped.
    pub tasks: Tasks,
    /// The tasks of the subscribers, which end with their clients.
    pub listeners: Tasks,
    /// The record of the calls and streams.
    pub ledger: Ledger,
    /// The record of the updates.
    pub updates: Arc<Updates>,
    /// The goals, and which of them have been reached.
    pub progress: Arc<Progress>,
    stopped: Arc<AtomicBool>,
}

impl Crew {
    /// Returns a crew without users.
    pub fn new(runtime: &Arc<dyn Runtime>, ledger: Ledger) -> Self {
        Self {
            runtime: Arc::clone(runtime),
            tasks: Tasks::new(runtime),
            listeners: Tasks::new(runtime),
            ledger,
            updates: Arc::default(),
            progress: Arc::default(),
            stopped: Arc::default(),
        }
    }

    /// Returns the time.
    pub fn now(&self) -> Time {
        self.runtime.now().time
    }

    /// Waits.
    pub async fn sleep(&self, duration: Duration) {
        self.runtime.sleep_until(self.now() + duration).await;
    }

    /// Asks all users to finish their current acts and to end.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// Returns `true` if the users must end.
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// Returns the output of a future, or drops the future and returns `None` after `patience`.
    pub async fn run_for<F: Future + Unpin>(&self, patience: Duration, mut future: F) -> Option<F::Output> {
        let mut sleep = pin!(self.sleep(patience));
        poll_fn(|cx| match Pin::new(&mut future).poll(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending => sleep.as_mut().poll(cx).map(|()| None),
        })
        .await
    }
}
