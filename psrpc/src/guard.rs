//! Catching panics of user code.

use std::any::Any;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A panic that was caught. Its payload has been dropped.
#[derive(Debug)]
pub(crate) struct Panicked {
    /// The message of the panic, if it has one.
    pub(crate) message: Option<String>,
}

/// Runs `run`, and returns `Err` if it panics.
pub(crate) fn catch<T>(run: impl FnOnce() -> T) -> Result<T, Panicked> {
    catch_unwind(AssertUnwindSafe(run)).map_err(|payload| {
        let message = message(&*payload).map(str::to_owned);
        if let Err(second_payload) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
            // The payload's destructor panicked too. Its payload is leaked, since dropping it may
            // panic again.
            mem::forget(second_payload);
        }
        Panicked { message }
    })
}

fn message(payload: &(dyn Any + Send)) -> Option<&str> {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str))
}
