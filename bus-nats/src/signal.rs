//! A signal to the task of a bus that there is something to do, and how a task waits for its turn.

use std::future::poll_fn;
use std::mem;
use std::sync::Arc;
use std::task::{Poll, Wake, Waker};

use tokio::sync::Notify;

#[derive(Default)]
pub(crate) struct Signal(Notify);

impl Signal {
    /// Wakes the task, now or when it waits next. No lock may be held.
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

/// Lets the tasks run that were woken before.
pub(crate) async fn yield_now() {
    let mut yielded = false;
    poll_fn(|cx| {
        if mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
