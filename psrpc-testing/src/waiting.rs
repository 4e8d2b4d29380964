//! Registration of wakers.

use std::task::{Context, Waker};

/// Replaces the registered waker. Returns the previous one, to be dropped without holding a lock.
pub(crate) fn replace(waiting: &mut Option<Waker>, cx: &Context<'_>) -> Option<Waker> {
    if waiting.as_ref().is_some_and(|registered| registered.will_wake(cx.waker())) {
        return None;
    }
    waiting.replace(cx.waker().clone())
}

/// Registers the waker, unless it is registered already.
pub(crate) fn register(waiting: &mut Vec<Waker>, cx: &Context<'_>) {
    if !waiting.iter().any(|registered| registered.will_wake(cx.waker())) {
        waiting.push(cx.waker().clone());
    }
}
