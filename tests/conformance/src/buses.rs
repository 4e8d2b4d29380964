//! Creates buses from URLs.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use psrpc::Runtime;
use psrpc::bus::Bus;
use psrpc_bus_local::LocalBus;
use psrpc_bus_url::TlsFiles;

use crate::case::Connect;

/// Returns a function that creates a bus for each case: a new in-process bus, or connections to the
/// server that `url` names.
///
/// If the URL names several NATS servers, the connections take turns in preferring one.
///
/// Connection errors are reported when a case connects.
pub fn bus(url: &str, runtime: Arc<dyn Runtime>) -> Arc<dyn Fn() -> Connect + Send + Sync> {
    bus_with_tls(url, runtime, TlsFiles::new())
}

/// Like [`bus`], with PEM files for a URL that asks for TLS.
pub fn bus_with_tls(
    url: &str,
    runtime: Arc<dyn Runtime>,
    files: TlsFiles,
) -> Arc<dyn Fn() -> Connect + Send + Sync> {
    if LocalBus::from_url(url).is_ok() {
        return Arc::new(|| {
            let bus = LocalBus::new();
            Arc::new(move || {
                let bus: Arc<dyn Bus> = Arc::new(bus.clone());
                Box::pin(async { Ok(bus) })
            })
        });
    }
    let urls = Urls::new(url);
    Arc::new(move || {
        let (urls, runtime, files) = (urls.clone(), Arc::clone(&runtime), files.clone());
        Arc::new(move || {
            let (url, runtime, files) = (urls.next(), Arc::clone(&runtime), files.clone());
            Box::pin(async move {
                let connected = psrpc_bus_url::connect_with_tls(&url, runtime, files).await;
                connected.map_err(|error| error.to_string())
            })
        })
    })
}

/// The URLs of a list. Only a list for NATS has several.
#[derive(Clone)]
struct Urls {
    urls: Vec<String>,
    /// The number of calls of [`next`](Self::next).
    asked: Arc<AtomicUsize>,
}

impl Urls {
    fn new(list: &str) -> Self {
        let is_list = list.split(',').all(|url| url.contains("://"));
        let urls = match is_list {
            true => list.split(',').map(str::to_owned).collect(),
            false => vec![list.to_owned()],
        };
        Self { urls, asked: Arc::default() }
    }

    /// Returns the list. Each time another URL is the first.
    fn next(&self) -> String {
        let mut urls = self.urls.clone();
        urls.rotate_left(self.asked.fetch_add(1, Ordering::Relaxed) % self.urls.len());
        urls.join(",")
    }
}
