//! What the examples share: the service, as generated from `proto/studio.proto`, and the `--bus` argument.

use psrpc_bus_local::{LocalBus, UrlError};

/// The service of the examples.
#[allow(missing_docs, reason = "documented in proto/studio.proto")]
pub mod studio {
    psrpc::include_proto!("studio.v1");
}

/// The arguments of an example.
#[derive(clap::Parser)]
pub struct Arguments {
    /// The bus, by URL: `local:` is one within this process.
    #[arg(long, default_value = "local:", value_parser = parse_bus)]
    pub bus: LocalBus,
}

fn parse_bus(url: &str) -> Result<LocalBus, UrlError> {
    LocalBus::from_url(url)
}
