//! The runtime for async-std.

use ::async_std::task;
use psrpc::proto::Seed;
use psrpc::{Now, Runtime, Task, Time};

use crate::{clock, seed};

/// A [`Runtime`] that is async-std's global executor; there with the feature `async-std` alone.
///
/// **async-std is discontinued**: nobody maintains it any more, and its authors send everybody to
/// smol. Start nothing new on it.
///
/// This is for a program that runs on async-std already. [`SmolRuntime`](crate::SmolRuntime) works
/// there as well, but brings smol's threads along; this one has handlers run on the threads that
/// the program's own tasks run on. It is given with `with_runtime`:
/// [`default_runtime`](crate::default_runtime) is smol, with this feature too.
#[derive(Clone, Copy, Debug, Default)]
pub struct AsyncStdRuntime;

impl Runtime for AsyncStdRuntime {
    fn now(&self) -> Now {
        clock::now()
    }

    fn seed(&self) -> Seed {
        seed()
    }

    fn sleep_until(&self, deadline: Time) -> Task {
        Box::pin(async move {
            // Its timer counts from the first poll, which may be long after this was made.
            task::sleep(deadline.since(clock::now().time)).await;
        })
    }

    fn spawn(&self, task: Task) {
        // Detached: it goes on without its handle.
        drop(task::spawn(task));
    }
}
