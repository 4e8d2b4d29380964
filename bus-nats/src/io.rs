//! The runtime of the NATS client library: the caller's tokio runtime, or a thread of the bus.

use std::any::Any;
use std::convert::Infallible;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::{io, thread};

use psrpc::Runtime;
use tokio::runtime::{Builder, Handle};
use tokio::sync::{mpsc, oneshot};

/// The runtime of the client library, which spawns its own tasks there.
pub(crate) enum Io {
    /// The caller's tokio runtime.
    Caller(Arc<dyn Runtime>),
    Thread(IoThread),
}

/// The reason why a future has no result.
#[derive(Debug)]
pub(crate) enum NoResult {
    /// The future panicked with this message.
    Panicked(String),
    /// The runtime has shut down.
    Stopped,
}

impl Io {
    pub(crate) async fn new(runtime: &Arc<dyn Runtime>) -> io::Result<Self> {
        if runtime.is_tokio() {
            return Ok(Io::Caller(Arc::clone(runtime)));
        }
        IoThread::new().await.map(Io::Thread)
    }

    /// Runs a future to completion within tokio, and catches its panics.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, NoResult> {
        let (sender, receiver) = oneshot::channel();
        let mut future = Box::pin(future);
        let task = Box::pin(async move {
            let caught = poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
                Ok(poll) => poll.map(Ok),
                Err(panic) => Err(NoResult::Panicked(message(&*panic))).into(),
            });
            // If the receiver was dropped, the connection attempt was given up.
            let _ = sender.send(caught.await);
        });
        match self {
            Io::Caller(runtime) => runtime.spawn(task),
            Io::Thread(thread) => drop(thread.handle.spawn(task)),
        }
        receiver.await.unwrap_or(Err(NoResult::Stopped))
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref().cloned()).unwrap_or_else(|| "no message".to_owned())
}

/// A thread with a tokio runtime. Dropping the handle ends the thread.
pub(crate) struct IoThread {
    handle: Handle,
    _shutdown: mpsc::Sender<Infallible>,
}

impl IoThread {
    async fn new() -> io::Result<Self> {
        let (started, start) = oneshot::channel();
        let (shutdown, mut dropped) = mpsc::channel(1);
        // The thread creates and drops the runtime itself, because tokio forbids dropping a runtime
        // within a task.
        let run = move || match Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => {
                let _ = started.send(Ok(runtime.handle().clone()));
                runtime.block_on(async { _ = dropped.recv().await });
            }
            Err(error) => _ = started.send(Err(error)),
        };
        thread::Builder::new().name("psrpc-nats".to_owned()).spawn(run)?;
        let handle = start.await.unwrap_or_else(|_| Err(io::Error::other("the thread ended immediately")))?;
        Ok(Self { handle, _shutdown: shutdown })
    }
}
