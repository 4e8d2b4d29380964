//! PSRPC on tokio: all of [`psrpc`], and the [`TokioRuntime`] that it runs on.
//!
//! The one crate to depend on, under the name `psrpc`, which generated code looks for:
//!
//! ```toml
//! psrpc = { package = "psrpc-tokio", version = "0.1" }
//! ```

#![forbid(unsafe_code)]
#![deny(missing_docs, missing_debug_implementations)]

use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use psrpc::proto::Seed;
#[doc(inline)]
pub use psrpc::*;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::time::Instant;

/// Returns the current tokio runtime, for clients and servers created without an explicit runtime.
///
/// # Errors
///
/// Returns `failed_precondition` if called outside of a tokio runtime.
pub fn default_runtime() -> Result<TokioRuntime, Error> {
    TokioRuntime::current()
}

/// A [`Runtime`] on a tokio runtime of any flavor.
///
/// Time must be enabled: creating a client or server panics otherwise.
///
/// Clients and servers end with their tokio runtime. For example, a client in a `static` outlives
/// the runtime of the `#[tokio::test]` that created it, and all its calls then fail with
/// [`Reason::RuntimeEnded`]. Create such a client on a runtime that lives as long.
///
/// The monotonic clock is tokio's, so it follows paused time. All runtimes in a process use the
/// same origin, so a deadline has the same meaning on each of them.
#[derive(Clone, Debug)]
pub struct TokioRuntime(Handle);

impl TokioRuntime {
    /// Returns a runtime that spawns tasks on the tokio runtime of `handle`.
    pub fn new(handle: Handle) -> Self {
        Self(handle)
    }

    /// Returns the current tokio runtime.
    ///
    /// # Errors
    ///
    /// Returns `failed_precondition` if called outside of a tokio runtime.
    pub fn current() -> Result<Self, Error> {
        Handle::try_current().map(Self).map_err(|_| {
            let text = "no tokio runtime: call this within one, or pass one to `with_runtime`";
            Error::new(ErrorCode::FailedPrecondition, text)
        })
    }
}

/// The origin of the monotonic clock of every runtime in this process.
fn origin() -> Instant {
    static ORIGIN: OnceLock<std::time::Instant> = OnceLock::new();
    #[expect(clippy::disallowed_methods, reason = "runtimes provide the clock")]
    Instant::from_std(*ORIGIN.get_or_init(std::time::Instant::now))
}

impl Runtime for TokioRuntime {
    fn is_tokio(&self) -> bool {
        true
    }

    fn now(&self) -> Now {
        let now = if self.0.runtime_flavor() == RuntimeFlavor::CurrentThread {
            // Time may be paused, which is only visible within the runtime.
            let _guard = self.0.enter();
            Instant::now()
        } else {
            #[expect(clippy::disallowed_methods, reason = "runtimes provide the clock")]
            Instant::from_std(std::time::Instant::now())
        };
        let since_origin = now.saturating_duration_since(origin());
        #[expect(clippy::disallowed_methods, reason = "runtimes provide the clock")]
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now { time: Time::ZERO + since_origin, wall: WallTime::default() + since_epoch }
    }

    fn seed(&self) -> Seed {
        let mut seed = Seed::default();
        #[expect(clippy::disallowed_methods, reason = "runtimes provide the seeds")]
        getrandom::fill(&mut seed).expect("the operating system must provide random numbers");
        seed
    }

    fn sleep_until(&self, deadline: Time) -> Task {
        let _guard = self.0.enter();
        Box::pin(tokio::time::sleep_until(origin() + deadline.since(Time::ZERO)))
    }

    fn spawn(&self, task: Task) {
        // Dropping the handle detaches the task.
        drop(self.0.spawn(task));
    }
}
