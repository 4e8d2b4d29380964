//! smol and async-std as hosts.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use psrpc::Runtime;
use psrpc_smol::SmolRuntime;

use super::Host;

/// smol's global executor.
pub struct Smol;

impl Host for Smol {
    fn runtime(&self) -> Arc<dyn Runtime> {
        Arc::new(SmolRuntime)
    }

    fn block_on(&self, future: Pin<Box<dyn Future<Output = ()> + '_>>) {
        smol::block_on(future);
    }
}

/// async-std's global executor. Requires the feature `async-std`.
#[cfg(feature = "async-std")]
pub struct AsyncStd;

#[cfg(feature = "async-std")]
impl Host for AsyncStd {
    fn runtime(&self) -> Arc<dyn Runtime> {
        Arc::new(psrpc_smol::AsyncStdRuntime)
    }

    fn block_on(&self, future: Pin<Box<dyn Future<Output = ()> + '_>>) {
        async_std::task::block_on(future);
    }
}
