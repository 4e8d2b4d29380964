//! Cancellation: tells a handler that nobody waits for it any more.

use std::sync::PoisonError;
use std::task::{Context, Waker};

use crate::sync::Mutex;
use crate::waiting;

/// Stops a handler that runs, from outside.
#[derive(Default)]
pub(crate) struct CancellationToken(Mutex<CancellationState>);

#[derive(Default)]
struct CancellationState {
    cancelled: bool,
    waker: Option<Waker>,
}

impl CancellationToken {
    pub(crate) fn cancel(&self) {
        let waker = {
            let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            state.cancelled = true;
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Whether the handler is to stop; wakes the task when that comes later.
    pub(crate) fn poll(&self, cx: &Context<'_>) -> bool {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let replaced = waiting::replace(&mut state.waker, cx);
        let cancelled = state.cancelled;
        drop(state);
        drop(replaced);
        cancelled
    }
}
