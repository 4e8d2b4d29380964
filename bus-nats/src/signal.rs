//! A signal that wakes the task of a bus.

use std::sync::Arc;
use std::task::{Wake, Waker};

use tokio::sync::Notify;

#[derive(Default)]
pub(crate) struct Signal(Notify);

impl Signal {
    /// Wakes the task now, or the next time it waits. The caller must not hold a lock.
    pub(crate) fn notify(&self) {
        self.0.notify_one();
    }

    /// Returns a waker that calls [`notify`](Self::notify), to be woken once no lock is held.
    pub(crate) fn waker(self: &Arc<Self>) -> Waker {
        Waker::from(Arc::clone(self))
    }

    pub(crate) async fn notified(&self) {
        self.0.notified().await;
    }
}

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        self.notify();
    }
}
