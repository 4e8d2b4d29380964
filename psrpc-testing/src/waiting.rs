//! Tasks that wait for something.

use std::task::{Context, Waker};

/// Puts the task in place of the one that waited before, and returns what is to be dropped without
/// any lock.
pub(crate) fn replace(waiting: &mut Option<Waker>, cx: &Context<'_>) -> Option<Waker> {
    if waiting.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
        return None;
    }
    waiting.replace(cx.waker().clone())
}

/// Adds the task to those that are woken, once, however often it is polled.
pub(crate) fn wait(waiting: &mut Vec<Waker>, cx: &Context<'_>) {
    if !waiting.iter().any(|known| known.will_wake(cx.waker())) {
        waiting.push(cx.waker().clone());
    }
}
