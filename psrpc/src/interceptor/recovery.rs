//! Recovery: what a server does about a panic of its handlers, besides failing the call.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

use crate::guard;
use crate::info::CallInfo;

/// A function that is told of panics.
pub(crate) type PanicHook = Arc<dyn Fn(&CallInfo, &(dyn Any + Send)) + Send + Sync>;

/// Runs code of a handler; the hooks are told of a panic in it, which goes on from here.
pub(crate) fn report_panics<T>(hooks: &[PanicHook], info: &CallInfo, run: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|payload| {
        for hook in hooks {
            let _ = guard::catch(|| hook(info, &*payload));
        }
        resume_unwind(payload)
    })
}
