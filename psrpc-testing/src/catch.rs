//! Code of tests that may panic.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Returns what `run` returns, or `None` if it panicked.
pub(crate) fn catch<T>(run: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(run)).ok()
}
