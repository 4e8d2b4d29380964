//! The runtime on async-std.

use ::async_std::task;
use psrpc::proto::Seed;
use psrpc::{Now, Runtime, Task, Time};

use crate::{clock, seed};

/// A [`Runtime`] on async-std's global executor. Requires the feature `async-std`.
///
/// **async-std is discontinued**, and its authors recommend smol. Do not use it in new programs.
///
/// This runtime is for programs that already run on async-std. [`SmolRuntime`](crate::SmolRuntime)
/// works there as well, but starts the threads of smol; with this runtime, handlers run on the
/// threads of the program's own tasks. Select it with `with_runtime`:
/// [`default_runtime`](crate::default_runtime) is smol even if this feature is enabled.
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
            // The timer starts at the first poll, which may be long after this call.
            task::sleep(deadline.since(clock::now().time)).await;
        })
    }

    fn spawn(&self, task: Task) {
        // Dropping the handle detaches the task.
        drop(task::spawn(task));
    }
}
