//! The runtime: what psrpc needs of an executor.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use psrpc_engine::proto::Seed;
use psrpc_engine::{Now, Time};

/// A future of any type, for where its type cannot be named.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A future that a runtime runs or gives, without a result.
pub type Task = BoxFuture<()>;

/// What psrpc needs of an executor: two clocks, a seed, sleeping and spawning.
///
/// Adapter crates implement it (psrpc-tokio, ...); implement it yourself for an executor of your
/// own, or to run everything in virtual time. Its functions are called from any thread, within and
/// outside of tasks.
///
/// Points of the monotonic clocks of two runtimes can be compared only if both count from the same
/// origin, as all those of one adapter crate do within a process.
pub trait Runtime: Send + Sync + 'static {
    /// Reads both clocks. The monotonic one must not go back, and is the one that
    /// [`sleep_until`](Self::sleep_until) waits by.
    fn now(&self) -> Now;

    /// 256 bits to draw ids and hash keys from, others at each call: from the operating system,
    /// unless in a simulation.
    fn seed(&self) -> Seed;

    /// Resolves when the monotonic clock has reached `deadline`: not before, and soon after. A
    /// deadline may be past, or so far that it never comes. A runtime without timers panics
    /// here, in the stack of the caller: clients and servers call this when they are created.
    fn sleep_until(&self, deadline: Time) -> Task;

    /// Runs a task to its end, in the background. A runtime that shuts down, or has, drops the task
    /// instead: by that, clients and servers know.
    fn spawn(&self, task: Task);

    /// Returns `true` if tasks that are spawned here run within tokio, with its timers and I/O:
    /// buses choose by this what their client libraries connect with. A runtime that wraps
    /// another must pass it on.
    fn is_tokio(&self) -> bool {
        false
    }
}

impl<R: Runtime + ?Sized> Runtime for Arc<R> {
    fn now(&self) -> Now {
        (**self).now()
    }

    fn seed(&self) -> Seed {
        (**self).seed()
    }

    fn sleep_until(&self, deadline: Time) -> Task {
        (**self).sleep_until(deadline)
    }

    fn spawn(&self, task: Task) {
        (**self).spawn(task);
    }

    fn is_tokio(&self) -> bool {
        (**self).is_tokio()
    }
}
