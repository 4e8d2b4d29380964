//! The runtimes that cases run on: tokio, smol, and the suite's own executor.

mod smol;
mod solo;
mod tokio;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use psrpc::Runtime;

#[cfg(feature = "async-std")]
pub use self::smol::AsyncStd;
pub use self::smol::Smol;
pub use self::solo::Solo;
pub use self::tokio::Tokio;

/// A runtime that can block on a future.
pub trait Host: Send + Sync {
    /// Returns the runtime.
    fn runtime(&self) -> Arc<dyn Runtime>;

    /// Runs a future to completion on the current thread.
    fn block_on(&self, future: Pin<Box<dyn Future<Output = ()> + '_>>);
}
