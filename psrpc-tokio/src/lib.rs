//! PSRPC on tokio: all of [`psrpc`], and the [`TokioRuntime`] that it runs on.
//!
//! The one crate to depend on, under the name `psrpc`, which generated code looks for:
//!
//! ```toml
//! psrpc = { package = "psrpc-tokio", version = "0.1" }
//! ```

#![forbid(unsafe_code)]
#![deny(missing_docs)]

use std::time::{SystemTime, UNIX_EPOCH};

use psrpc::proto::Seed;
pub use psrpc::*;
use tokio::runtime::Handle;
use tokio::time::Instant;

/// The runtime of the tokio that we are called on, for clients and servers made without one of their own.
///
/// # Errors
///
/// `failed_precondition` when we are not called on tokio.
pub fn default_runtime() -> Result<TokioRuntime, Error> {
    TokioRuntime::current()
}

/// A [`Runtime`] that is a tokio runtime, of any flavour, with time enabled.
///
/// Its monotonic clock is tokio's, so it stands still and jumps with tokio's paused time.
#[derive(Clone, Debug)]
pub struct TokioRuntime {
    handle: Handle,
    origin: Instant,
}

impl TokioRuntime {
    /// A runtime that spawns on the tokio that `handle` belongs to.
    pub fn new(handle: Handle) -> Self {
        let origin = {
            let _guard = handle.enter();
            Instant::now()
        };
        Self { handle, origin }
    }

    /// The tokio that we are called on.
    ///
    /// # Errors
    ///
    /// `failed_precondition` when we are not called on tokio.
    pub fn current() -> Result<Self, Error> {
        let handle = Handle::try_current()
            .map_err(|error| Error::from_source(ErrorCode::FailedPrecondition, error))?;
        Ok(Self::new(handle))
    }
}

impl Runtime for TokioRuntime {
    fn now(&self) -> Now {
        let since_origin = Instant::now().saturating_duration_since(self.origin);
        #[expect(clippy::disallowed_methods, reason = "the runtime is where clocks are read")]
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now { time: Time::ZERO + since_origin, wall: WallTime::default() + since_epoch }
    }

    fn seed(&self) -> Seed {
        let mut seed = Seed::default();
        getrandom::fill(&mut seed).expect("the operating system has random numbers");
        seed
    }

    fn sleep_until(&self, deadline: Time) -> Task {
        let _guard = self.handle.enter();
        Box::pin(tokio::time::sleep_until(self.origin + deadline.since(Time::ZERO)))
    }

    fn spawn(&self, task: Task) {
        // Detached: it ends by itself, or with its runtime.
        drop(self.handle.spawn(task));
    }
}
