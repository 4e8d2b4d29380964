//! The runtimes that cases run on.

use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use clap::ValueEnum;
use psrpc::Runtime;
use psrpc_smol::SmolRuntime;
use psrpc_tokio::TokioRuntime;

/// The name of a runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RuntimeName {
    /// Tokio with two worker threads.
    Tokio,
    /// Smol's global executor.
    Smol,
}

/// A runtime whose tasks run in the background. Dropping it stops tokio; smol's executor is global.
pub struct Executor {
    runtime: Arc<dyn Runtime>,
    _tokio: Option<tokio::runtime::Runtime>,
}

impl RuntimeName {
    /// Every runtime.
    pub const ALL: [RuntimeName; 2] = [RuntimeName::Tokio, RuntimeName::Smol];

    /// Returns the name, as the command line takes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tokio => "tokio",
            Self::Smol => "smol",
        }
    }

    /// Starts the runtime.
    ///
    /// # Panics
    ///
    /// Panics if its threads cannot be started.
    pub fn start(self) -> Executor {
        match self {
            Self::Tokio => {
                let mut builder = tokio::runtime::Builder::new_multi_thread();
                let tokio = builder.worker_threads(2).enable_all().build().expect("tokio starts");
                let runtime = Arc::new(TokioRuntime::new(tokio.handle().clone()));
                Executor { runtime, _tokio: Some(tokio) }
            }
            Self::Smol => Executor::new(Arc::new(SmolRuntime)),
        }
    }
}

impl Executor {
    /// Returns an executor of this runtime, which must run its tasks in the background by itself.
    pub fn new(runtime: Arc<dyn Runtime>) -> Self {
        Self { runtime, _tokio: None }
    }

    /// Returns the runtime.
    pub fn runtime(&self) -> &Arc<dyn Runtime> {
        &self.runtime
    }

    /// Runs a future in the background and returns its output.
    ///
    /// # Errors
    ///
    /// Returns an error that names `what` if the future panics or has no output within `limit`.
    pub fn wait<T: Send + 'static>(
        &self,
        what: &str,
        limit: Duration,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, String> {
        let (sender, receiver) = mpsc::channel();
        self.runtime.spawn(Box::pin(async move { drop(sender.send(future.await)) }));
        receiver.recv_timeout(limit).map_err(|error| match error {
            RecvTimeoutError::Timeout => format!("{what}: not done after {limit:?}"),
            RecvTimeoutError::Disconnected => format!("{what}: its task panicked"),
        })
    }
}
