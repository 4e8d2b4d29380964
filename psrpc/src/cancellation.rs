//! Cancellation of handlers whose response is no longer needed, and of the calls made within them.

use std::sync::{Arc, PoisonError};
use std::task::{Context, Waker};

use crate::bus::WakeList;
use crate::sync::{Mutex, MutexGuard};
use crate::waiting;
use crate::waiting::{WaiterKey, Waiters};

/// A token that stops a handler from outside, and with it the calls made within it.
#[derive(Default)]
pub(crate) struct CancellationToken(Mutex<CancellationState>);

#[derive(Default)]
struct CancellationState {
    cancelled: bool,
    handler: Option<Waker>,
    nested_calls: Waiters,
}

impl CancellationToken {
    /// Stops the handler and the calls within it.
    pub(crate) fn cancel(&self) {
        let mut wakes = WakeList::new();
        let mut state = self.state();
        state.cancelled = true;
        wakes.extend(state.handler.take());
        wakes.extend(state.nested_calls.take());
        drop(state);
    }

    /// Returns `true` if the handler must stop. Otherwise registers the task to be woken.
    pub(crate) fn poll(&self, cx: &Context<'_>) -> bool {
        let mut state = self.state();
        let replaced = waiting::replace(&mut state.handler, cx);
        let cancelled = state.cancelled;
        drop(state);
        drop(replaced);
        cancelled
    }

    /// Returns `true` if a call within the handler must stop. Otherwise registers the task to be
    /// woken.
    pub(crate) fn poll_nested(&self, key: &mut WaiterKey, cx: &Context<'_>) -> bool {
        let mut state = self.state();
        let cancelled = state.cancelled;
        let replaced = if cancelled { None } else { state.nested_calls.wait(key, cx) };
        drop(state);
        drop(replaced);
        cancelled
    }

    /// Forgets the task of a call within the handler.
    pub(crate) fn forget(&self, key: &mut WaiterKey) {
        let removed = self.state().nested_calls.remove(key);
        drop(removed);
    }

    fn state(&self) -> MutexGuard<'_, CancellationState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The token of a handler, held together with its future. Dropping it cancels the token, so the
/// calls within a handler end with it, also if it never runs.
pub(crate) struct CancelOnDrop(pub(crate) Arc<CancellationToken>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}
