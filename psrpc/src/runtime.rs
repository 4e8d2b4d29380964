//! The [`Runtime`] trait: the interface that psrpc needs from an executor.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use psrpc_engine::proto::Seed;
use psrpc_engine::{Now, Time};

/// A boxed future, for use where its type cannot be named.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A boxed future without a result.
pub type Task = BoxFuture<()>;

/// The interface that psrpc needs from an executor: clocks, a seed, timers and spawning.
///
/// Adapter crates such as psrpc-tokio implement it. Implement it yourself for another executor, or
/// to run everything in virtual time. Its functions are called from any thread, inside and outside
/// of tasks.
///
/// Times on the monotonic clocks of two runtimes are comparable only if both clocks have the same
/// origin. All runtimes of one adapter crate within a process have the same origin.
pub trait Runtime: Send + Sync + 'static {
    /// Reads both clocks. The monotonic clock must not go back, and must be the one that
    /// [`sleep_until`](Self::sleep_until) uses.
    fn now(&self) -> Now;

    /// Returns 256 random bits for ids and hash keys, different at each call. They come from the
    /// operating system, except in a simulation.
    fn seed(&self) -> Seed;

    /// Returns a future that resolves soon after the monotonic clock has reached `deadline`, and
    /// not before. The deadline may be in the past, or so far away that it never comes.
    ///
    /// A runtime without timers panics in this function, rather than in the future. Clients and
    /// servers call it when they are created.
    fn sleep_until(&self, deadline: Time) -> Task;

    /// Runs a task in the background until it ends. A runtime that is shutting down, or has shut
    /// down, drops the task, which is how clients and servers notice the shutdown.
    fn spawn(&self, task: Task);

    /// Returns `true` if spawned tasks run inside tokio, with its timers and I/O. Buses use it to
    /// choose their client library. A runtime that wraps another must forward the call.
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
