//! A signal to the task of a bus that there is something to do.

use std::sync::Arc;
use std::task::{Wake, Waker};

use tokio::sync::Notify;

#[derive(Default)]
pub(crate) struct Signal(Notify);

impl Signal {
    /// WakeList the task, now or when it waits next. No lock may be held.
    pub(crate) fn notify(&self) {
        self.0.notify_one();
    }

    /// Returns a waker that does so, for when no lock is held any more.
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
