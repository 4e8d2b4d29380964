//! User code that may panic, and what it threw, which may panic again when it is dropped.

use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What `run` returns; `None` when it panicked.
pub(crate) fn catch<T>(run: impl FnOnce() -> T) -> Option<T> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(returned) => Some(returned),
        Err(thrown) => {
            if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(thrown))) {
                // Whoever throws from there too is left alone.
                mem::forget(again);
            }
            None
        }
    }
}
