//! Recovery: what a server does about a panic of its handlers, besides failing the call.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

use crate::{CallInfo, ServerOptions, guard};

/// A function that is told of panics.
pub(crate) type PanicHook = Arc<dyn Fn(&CallInfo, &(dyn Any + Send)) + Send + Sync>;

impl ServerOptions {
    /// Calls a function with every panic of a handler or of an interceptor around it: what was thrown is a `&str` or a
    /// `String` for most. The caller gets `internal`, and no more, in any case.
    ///
    /// ```
    /// # use psrpc::ServerOptions;
    /// let options = ServerOptions::new().on_panic(|info, thrown| {
    ///     eprintln!("{info} panicked: {:?}", thrown.downcast_ref::<&str>());
    /// });
    /// ```
    ///
    /// It runs on the handler's task. A panic in it is discarded.
    #[must_use]
    pub fn on_panic(mut self, hook: impl Fn(&CallInfo, &(dyn Any + Send)) + Send + Sync + 'static) -> Self {
        self.around.panics.push(Arc::new(hook));
        self
    }
}

/// Runs code of a handler; the hooks are told of a panic in it, which goes on from here.
pub(crate) fn reporting<T>(hooks: &[PanicHook], info: &CallInfo, run: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|thrown| {
        for hook in hooks {
            let _ = guard::catch(|| hook(info, &*thrown));
        }
        resume_unwind(thrown)
    })
}
