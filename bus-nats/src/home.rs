//! The thread on which a bus runs.

use std::convert::Infallible;
use std::{io, thread};

use tokio::runtime::{Builder, Handle};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// The thread on which a bus runs: it ends when this is dropped.
pub(crate) struct Home {
    runtime: Handle,
    _thread: mpsc::Sender<Infallible>,
}

impl Home {
    pub(crate) fn new() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (thread, mut ended) = mpsc::channel(1);
        thread::Builder::new()
            .name("psrpc-nats".to_owned())
            .spawn(move || runtime.block_on(async { _ = ended.recv().await }))?;
        Ok(Self { runtime: handle, _thread: thread })
    }

    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        self.runtime.spawn(task)
    }
}
