//! User code that may panic, and what it threw, which may panic again when it is dropped.

use std::any::Any;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A panic that was caught: what was thrown is dropped by now.
#[derive(Debug)]
pub(crate) struct Panicked {
    /// Its message, if it had one.
    pub(crate) message: Option<String>,
}

/// Returns what `run` returns, or that it panicked.
pub(crate) fn catch<T>(run: impl FnOnce() -> T) -> Result<T, Panicked> {
    catch_unwind(AssertUnwindSafe(run)).map_err(|payload| {
        let message = message(&*payload).map(str::to_owned);
        if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
            // Whoever throws from there too is left alone.
            mem::forget(again);
        }
        Panicked { message }
    })
}

fn message(payload: &(dyn Any + Send)) -> Option<&str> {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str))
}
