//! A conformance suite for PSRPC buses and runtimes.
//!
//! Each [`Case`] checks one behaviour that users can observe. It has a stable id, and names the
//! invariant or section of the protocol that it checks. [`run`] returns its [`Verdict`]. Cases run
//! on any [`Bus`](psrpc::bus::Bus) and any [`Runtime`](psrpc::Runtime): use them to test a new bus,
//! or an adapter for another executor.
//!
//! ```no_run
//! use std::sync::Arc;
//! use std::time::Duration;
//!
//! use psrpc::bus::Bus;
//! use psrpc_bus_local::LocalBus;
//! use psrpc_conformance::runtime::{Host, Tokio};
//! use psrpc_conformance::{Subject, cases, run};
//!
//! let subject = Subject {
//!     // Called once for each case. The bus must not be used by anything else meanwhile. Each call
//!     // of the returned function opens a connection to it.
//!     bus: Arc::new(|| {
//!         let bus = LocalBus::new();
//!         Arc::new(move || {
//!             let bus: Arc<dyn Bus> = Arc::new(bus.clone());
//!             Box::pin(async { Ok(bus) })
//!         })
//!     }),
//!     host: Arc::new(Tokio::multi_thread(2)),
//!     calls: 1000,
//!     settling_time: Duration::ZERO,
//! };
//! for case in cases() {
//!     println!("{}: {:?}", case.id, run(case, &subject));
//! }
//! ```
//!
//! On the command line: `cargo run -p psrpc-conformance -- list`, and `-- run --bus local:
//! --runtime tokio`.

#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod buses;
mod case;
mod cases;
mod env;
mod foreign;
pub mod runtime;
mod settling;
mod shop;

pub use buses::{bus, bus_with_tls};
pub use case::{Case, Connect, Connecting, Subject, Verdict, run};
pub use cases::cases;
pub use env::Env;

/// The generated code of the services that the cases use.
#[allow(missing_docs, reason = "the messages' fields are documented in proto/shop.proto")]
pub mod proto {
    psrpc::include_proto!("conformance.v1");
}
