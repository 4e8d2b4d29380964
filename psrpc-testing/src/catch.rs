//! Code of tests that may panic.

use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Returns what `run` returns, or `None` if it panicked. What it threw is dropped here, and may
/// panic once more.
pub(crate) fn catch<T>(run: impl FnOnce() -> T) -> Option<T> {
    let thrown = match catch_unwind(AssertUnwindSafe(run)) {
        Ok(result) => return Some(result),
        Err(thrown) => thrown,
    };
    if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(thrown))) {
        mem::forget(again);
    }
    None
}
