//! Where cases run: on tokio, on smol, and on an executor of the suite's own.

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

/// A runtime together with a way to run a future to its end on it.
pub trait Host: Send + Sync {
    /// The runtime.
    fn runtime(&self) -> Arc<dyn Runtime>;

    /// Runs a future to its end, on this thread.
    fn block_on(&self, future: Pin<Box<dyn Future<Output = ()> + '_>>);
}
