//! The buses that a URL can name.

use std::sync::Arc;

use psrpc::Runtime;
use psrpc::bus::Bus;
use psrpc_bus_local::LocalBus;
use psrpc_bus_redis::RedisBus;

use crate::case::{Connect, Connecting};

/// Makes a bus for each case: a local one of its own, or connections to the server that `url` names.
///
/// # Errors
///
/// When no bus has the URL's scheme. Whether a server is there shows when a case connects.
pub fn bus(url: &str, runtime: Arc<dyn Runtime>) -> Result<Arc<dyn Fn() -> Connect + Send + Sync>, String> {
    match url.split_once("://") {
        Some(("redis", _)) => {
            let url = url.to_owned();
            Ok(Arc::new(move || {
                let (url, runtime) = (url.clone(), Arc::clone(&runtime));
                Arc::new(move || {
                    let (url, runtime) = (url.clone(), Arc::clone(&runtime));
                    connecting(async move { RedisBus::connect(&url, runtime).await })
                })
            }))
        }
        _ => {
            LocalBus::from_url(url).map_err(|error| error.to_string())?;
            Ok(Arc::new(|| {
                let bus = LocalBus::new();
                Arc::new(move || {
                    let bus = bus.clone();
                    connecting(async move { Ok::<_, String>(bus) })
                })
            }))
        }
    }
}

fn connecting<B: Bus, E: std::fmt::Display>(
    connect: impl Future<Output = Result<B, E>> + Send + 'static,
) -> Connecting {
    Box::pin(async move {
        match connect.await {
            Ok(bus) => Ok(Arc::new(bus) as Arc<dyn Bus>),
            Err(error) => Err(error.to_string()),
        }
    })
}
