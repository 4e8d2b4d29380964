//! Tasks that wait for the same thing.

use std::task::{Context, Waker};

/// Adds the task to those that are woken, once, however often it is polled.
pub(crate) fn wait(waiting: &mut Vec<Waker>, cx: &Context<'_>) {
    if !waiting.iter().any(|known| known.will_wake(cx.waker())) {
        waiting.push(cx.waker().clone());
    }
}
