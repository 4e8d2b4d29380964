//! A runtime that a test can stop.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use psrpc::bus::{Lock, LockGuard};
use psrpc::proto::Seed;
use psrpc::{Now, Runtime, Task, Time};
use slab::Slab;

use crate::waiting;

/// A runtime that a test can stop while clients and servers on it are still in use. This happens,
/// for example, to a client in a `static` that two tests share. Cheap to clone; all clones are one
/// runtime.
///
/// Tasks run on the wrapped runtime. [Stopping](Self::stop) drops all tasks. Afterwards no task
/// runs and no sleep completes.
///
/// ```
/// use psrpc_testing::StoppableRuntime;
/// use psrpc::{Client, ClientOptions, Reason};
/// # use psrpc::{Error, Method, MethodProperties, Routing, Runtime, Service};
/// # const FIT_PROPERTIES: MethodProperties =
/// #     MethodProperties { routing: Routing::Queue, require_claim: true };
/// # const FIT: Method = Method::call(0, "Fit", FIT_PROPERTIES);
/// # static HATS: Service = Service { name: "Hats", methods: &[FIT] };
///
/// # async fn example(bus: impl psrpc::bus::Bus, runtime: impl Runtime) -> Result<(), Error> {
/// let runtime = StoppableRuntime::new(runtime);
/// let client = Client::new(bus, runtime.clone(), &HATS, ClientOptions::new()).await?;
/// let call = client.call::<_, String>(&HATS.methods[0], &[], "a fez".to_owned());
/// runtime.stop();
/// assert_eq!(call.await.unwrap_err().reason(), Some(Reason::RuntimeEnded));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct StoppableRuntime(Arc<Inner>);

struct Inner {
    runtime: Arc<dyn Runtime>,
    tasks: Lock<Tasks>,
}

#[derive(Default)]
struct Tasks {
    stopped: bool,
    tasks: Slab<Slot>,
}

struct Slot {
    /// The task, unless it is being polled.
    task: Option<Task>,
    /// Wakes the task on the wrapped runtime.
    waker: Option<Waker>,
}

impl StoppableRuntime {
    /// Returns a runtime that runs its tasks on `runtime`.
    pub fn new(runtime: impl Runtime) -> Self {
        Self(Arc::new(Inner { runtime: Arc::new(runtime), tasks: Lock::default() }))
    }

    /// Stops the runtime and drops all tasks. A task that is being polled on another thread is
    /// dropped after that poll.
    pub fn stop(&self) {
        let slots: Vec<_> = {
            let mut tasks = self.0.lock();
            tasks.stopped = true;
            tasks.tasks.iter_mut().map(|(_, slot)| (slot.task.take(), slot.waker.take())).collect()
        };
        for (task, waker) in slots {
            drop(task);
            waker.into_iter().for_each(Waker::wake);
        }
    }
}

impl Inner {
    fn lock(&self) -> LockGuard<'_, Tasks> {
        self.tasks.lock()
    }
}

impl fmt::Debug for StoppableRuntime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoppableRuntime").field("stopped", &self.0.lock().stopped).finish_non_exhaustive()
    }
}

impl Runtime for StoppableRuntime {
    fn is_tokio(&self) -> bool {
        self.0.runtime.is_tokio()
    }

    fn now(&self) -> Now {
        self.0.runtime.now()
    }

    fn seed(&self) -> Seed {
        self.0.runtime.seed()
    }

    fn sleep_until(&self, deadline: Time) -> Task {
        Box::pin(Sleep { inner: Arc::clone(&self.0), sleep: self.0.runtime.sleep_until(deadline) })
    }

    fn spawn(&self, task: Task) {
        let key = {
            let mut tasks = self.0.lock();
            match tasks.stopped {
                true => None,
                false => Some(tasks.tasks.insert(Slot { task: Some(task), waker: None })),
            }
        };
        if let Some(key) = key {
            self.0.runtime.spawn(Box::pin(StoppableTask { inner: Arc::clone(&self.0), key }));
        }
    }
}

/// The task on the wrapped runtime that polls one task.
struct StoppableTask {
    inner: Arc<Inner>,
    key: usize,
}

impl Future for StoppableTask {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        // Take the task out to poll it without the lock.
        let (task, replaced) = {
            let slot = &mut self.inner.lock().tasks[self.key];
            (slot.task.take(), waiting::replace(&mut slot.waker, cx))
        };
        drop(replaced);
        let Some(mut task) = task else { return Poll::Ready(()) };
        if task.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let mut tasks = self.inner.lock();
        if tasks.stopped {
            drop(tasks);
            drop(task);
            return Poll::Ready(());
        }
        tasks.tasks[self.key].task = Some(task);
        Poll::Pending
    }
}

impl Drop for StoppableTask {
    fn drop(&mut self) {
        let slot = self.inner.lock().tasks.remove(self.key);
        drop(slot);
    }
}

/// A sleep that completes only if the runtime was not stopped.
struct Sleep {
    inner: Arc<Inner>,
    sleep: Task,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.inner.lock().stopped { Poll::Pending } else { self.sleep.as_mut().poll(cx) }
    }
}
