//! Creates buses from URLs.

use std::sync::Arc;

use psrpc::Runtime;
use psrpc::bus::Bus;
use psrpc_bus_local::LocalBus;

use crate::case::Connect;

/// Returns a function that creates a bus for each case: a new in-process bus, or connections to the
/// server that `url` names.
///
/// Connection errors are reported when a case connects.
pub fn bus(url: &str, runtime: Arc<dyn Runtime>) -> Arc<dyn Fn() -> Connect + Send + Sync> {
    if LocalBus::from_url(url).is_ok() {
        return Arc::new(|| {
            let bus = LocalBus::new();
            Arc::new(move || {
                let bus: Arc<dyn Bus> = Arc::new(bus.clone());
                Box::pin(async { Ok(bus) })
            })
        });
    }
    let url = url.to_owned();
    Arc::new(move || {
        let (url, runtime) = (url.clone(), Arc::clone(&runtime));
        Arc::new(move || {
            let (url, runtime) = (url.clone(), Arc::clone(&runtime));
            Box::pin(
                async move { psrpc_bus_url::connect(&url, runtime).await.map_err(|error| error.to_string()) },
            )
        })
    })
}
