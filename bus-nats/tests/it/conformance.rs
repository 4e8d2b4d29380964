//! The whole suite of a bus, over NATS.

use std::sync::Arc;

use psrpc::bus::Bus;
use psrpc_bus_nats::NatsBus;
use psrpc_conformance::runtime::Tokio;
use psrpc_conformance::{Connect, Subject, cases, run};

use crate::server::Server;
use crate::support::block_on;

#[test]
fn every_case_holds() {
    // One case after another on one server: what a case leaves behind, its end has taken off the server.
    let server = Arc::new(Server::start());
    let connect: Connect = Arc::new(move || {
        let server = Arc::clone(&server);
        // Away from the host's runtime, which has no I/O.
        let connecting = std::thread::spawn(move || block_on(NatsBus::connect(&server.url())));
        Arc::new(connecting.join().unwrap().unwrap()) as Arc<dyn Bus>
    });
    let subject = Subject {
        bus: Arc::new(move || Arc::clone(&connect)),
        host: Arc::new(Tokio::multi_thread(2)),
        calls: 200,
    };
    let failed: Vec<_> = cases()
        .into_iter()
        .filter_map(|case| run(case, &subject).err().map(|error| format!("{}: {error}", case.id)))
        .collect();
    assert!(failed.is_empty(), "{} failed:\n{}", failed.len(), failed.join("\n"));
}
