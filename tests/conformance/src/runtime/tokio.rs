//! tokio as a host.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use psrpc::Runtime;
use psrpc_tokio::TokioRuntime;
use tokio::runtime;

use super::Host;

/// A tokio runtime.
pub struct Tokio(runtime::Runtime);

impl Tokio {
    /// Creates a multi-threaded runtime with this number of worker threads.
    pub fn multi_thread(workers: usize) -> Self {
        Self::build(runtime::Builder::new_multi_thread().worker_threads(workers))
    }

    /// Creates a runtime on the current thread.
    pub fn current_thread() -> Self {
        Self::build(&mut runtime::Builder::new_current_thread())
    }

    fn build(builder: &mut runtime::Builder) -> Self {
        Self(builder.enable_all().build().expect("tokio starts"))
    }
}

impl Host for Tokio {
    fn runtime(&self) -> Arc<dyn Runtime> {
        Arc::new(TokioRuntime::new(self.0.handle().clone()))
    }

    fn block_on(&self, future: Pin<Box<dyn Future<Output = ()> + '_>>) {
        self.0.block_on(future);
    }
}
