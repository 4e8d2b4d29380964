//! Cancellation of handlers whose response is no longer needed.

use std::sync::PoisonError;
use std::task::{Context, Waker};

use crate::sync::Mutex;
use crate::waiting;

/// A token that stops a running handler from outside.
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

    /// Returns `true` if the handler must stop. Otherwise registers the task to be woken.
    pub(crate) fn poll(&self, cx: &Context<'_>) -> bool {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let replaced = waiting::replace(&mut state.waker, cx);
        let cancelled = state.cancelled;
        drop(state);
        drop(replaced);
        cancelled
    }
}
