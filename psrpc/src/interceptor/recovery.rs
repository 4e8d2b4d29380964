//! Reporting panics of handlers to the panic hooks.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

use crate::guard;
use crate::info::CallInfo;

/// A function called with the payload of a panic.
pub(crate) type PanicHook = Arc<dyn Fn(&CallInfo, &(dyn Any + Send)) + Send + Sync>;

/// Runs code of a handler. If it panics, calls the hooks and resumes the panic.
pub(crate) fn report_panics<T>(hooks: &[PanicHook], info: &CallInfo, run: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|payload| {
        for hook in hooks {
            let _ = guard::catch(|| hook(info, &*payload));
        }
        resume_unwind(payload)
    })
}
