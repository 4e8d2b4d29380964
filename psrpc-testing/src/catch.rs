//! Runs test code that may panic.

use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Returns the result of `run`, or `None` if it panics. Drops the panic payload, whose destructor
/// may panic again.
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
