//! The whole suite of a bus, over NATS.

use std::sync::Arc;

use psrpc::bus::Bus;
use psrpc_bus_nats::NatsBus;
use psrpc_conformance::runtime::{Host, Smol, Tokio};
use psrpc_conformance::{Connect, Connecting, Subject, cases, run};
use psrpc_servers::Server;

/// Runs one case after another on one server: what a case leaves behind, its end has taken off the server.
fn every_case(host: Arc<dyn Host>) {
    let server = Server::nats(&[]);
    let url = server.url();
    let connect: Connect = Arc::new(move || {
        let url = url.clone();
        Box::pin(async move {
            let bus = NatsBus::connect(&url).await.map_err(|error| error.to_string())?;
            Ok(Arc::new(bus) as Arc<dyn Bus>)
        }) as Connecting
    });
    let subject = Subject { bus: Arc::new(move || Arc::clone(&connect)), host, calls: 200 };
    let failed: Vec<_> = cases()
        .into_iter()
        .filter_map(|case| run(case, &subject).err().map(|error| format!("{}: {error}", case.id)))
        .collect();
    assert!(failed.is_empty(), "{} failed:\n{}", failed.len(), failed.join("\n"));
}

#[test]
fn every_case_holds_on_tokio() {
    every_case(Arc::new(Tokio::multi_thread(2)));
}

#[test]
fn every_case_holds_on_smol() {
    every_case(Arc::new(Smol));
}
