//! PSRPC on tokio: all of [`psrpc`], and the [`TokioRuntime`] that it runs on.
//!
//! Depend on this crate under the name `psrpc`, which generated code uses.
//!
//! Your services call each other through a message bus instead of by address. A [`Client`]
//! publishes a request, the [`Server`]s of the service bid for it with an affinity, and the client
//! grants the best bid. `psrpc-build` generates typed clients and servers from a .proto.
//!
#![doc = include_str!("guide.md")]
#![forbid(unsafe_code)]
#![deny(missing_docs, missing_debug_implementations)]

use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use psrpc::proto::Seed;
#[doc(inline)]
pub use psrpc::*;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::time::Instant;

/// The runtime of the tokio that we are called on, for clients and servers made without one of
/// their own.
///
/// # Errors
///
/// `failed_precondition` when we are not called on tokio.
pub fn default_runtime() -> Result<TokioRuntime, Error> {
    TokioRuntime::current()
}

/// A [`Runtime`] that is a tokio runtime, of any flavour, with time enabled. To create a client or
/// server on one without panics.
///
/// What is created on it ends with it: a client in a `static` outlives the tokio of the
/// `#[tokio::test]` that made it, and then fails everything with [`Reason::RuntimeEnded`]. Give
/// such a client a tokio that lives as long.
///
/// Its monotonic clock is tokio's, so it stands still and jumps with tokio's paused time. All of
/// them in a process count from the same origin, so that a deadline means the same to each.
#[derive(Clone, Debug)]
pub struct TokioRuntime(Handle);

impl TokioRuntime {
    /// A runtime that spawns on the tokio that `handle` belongs to.
    pub fn new(handle: Handle) -> Self {
        Self(handle)
    }

    /// The tokio that we are called on.
    ///
    /// # Errors
    ///
    /// `failed_precondition` when we are not called on tokio.
    pub fn current() -> Result<Self, Error> {
        Handle::try_current().map(Self).map_err(|_| {
            let text = "there is no tokio runtime here: call it on one, or give it one with `with_runtime`";
            Error::new(ErrorCode::FailedPrecondition, text)
        })
    }
}

/// The origin of the monotonic clock of every runtime in this process.
fn origin() -> Instant {
    static ORIGIN: OnceLock<std::time::Instant> = OnceLock::new();
    #[expect(clippy::disallowed_methods, reason = "the runtime is where clocks are read")]
    Instant::from_std(*ORIGIN.get_or_init(std::time::Instant::now))
}

impl Runtime for TokioRuntime {
    fn is_tokio(&self) -> bool {
        true
    }

    fn now(&self) -> Now {
        let now = if self.0.runtime_flavor() == RuntimeFlavor::CurrentThread {
            // Its time may be paused, which is seen within it alone.
            let _guard = self.0.enter();
            Instant::now()
        } else {
            #[expect(clippy::disallowed_methods, reason = "the runtime is where clocks are read")]
            Instant::from_std(std::time::Instant::now())
        };
        let since_origin = now.saturating_duration_since(origin());
        #[expect(clippy::disallowed_methods, reason = "the runtime is where clocks are read")]
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now { time: Time::ZERO + since_origin, wall: WallTime::default() + since_epoch }
    }

    fn seed(&self) -> Seed {
        let mut seed = Seed::default();
        #[expect(clippy::disallowed_methods, reason = "the runtime is where seeds come from")]
        getrandom::fill(&mut seed).expect("the operating system has random numbers");
        seed
    }

    fn sleep_until(&self, deadline: Time) -> Task {
        let _guard = self.0.enter();
        Box::pin(tokio::time::sleep_until(origin() + deadline.since(Time::ZERO)))
    }

    fn spawn(&self, task: Task) {
        // Detached: it ends by itself, or with its runtime.
        drop(self.0.spawn(task));
    }
}
