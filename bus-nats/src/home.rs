//! Where the tasks of a bus run: in the caller's tokio runtime, or on a thread of their own.

use std::convert::Infallible;
use std::{io, thread};

use tokio::runtime::{Builder, Handle};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Where the tasks of a bus run.
pub(crate) struct Home {
    handle: Handle,
    /// Ends the thread when it is dropped.
    _thread: Option<mpsc::Sender<Infallible>>,
}

impl Home {
    /// The runtime that the caller is in, or one of its own.
    pub(crate) fn find() -> io::Result<Self> {
        if let Ok(handle) = Handle::try_current() {
            return Ok(Self { handle, _thread: None });
        }
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (thread, mut ended) = mpsc::channel(1);
        thread::Builder::new()
            .name("psrpc-nats".to_owned())
            .spawn(move || runtime.block_on(async { _ = ended.recv().await }))?;
        Ok(Self { handle, _thread: Some(thread) })
    }

    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        self.handle.spawn(task)
    }
}
