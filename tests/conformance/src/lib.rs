//! The suite that judges a PSRPC bus or runtime.
//!
//! Every behaviour that a user can see is a [`Case`], with an id that stays, the invariant or
//! section of the protocol that it stands for, and a verdict. The cases are written against any
//! [`Bus`](psrpc::bus::Bus) and any [`Runtime`](psrpc::Runtime): a bus author runs them on a new
//! bus, an executor author on a new adapter.
//!
//! ```no_run
//! use std::sync::Arc;
//!
//! use psrpc::bus::Bus;
//! use psrpc_bus_local::LocalBus;
//! use psrpc_conformance::runtime::{Host, Tokio};
//! use psrpc_conformance::{Subject, cases, run};
//!
//! let subject = Subject {
//!     // Called for each case: a bus that nobody else uses meanwhile, with a connection for each
//!     // call of what it returns.
//!     bus: Arc::new(|| {
//!         let bus = LocalBus::new();
//!         Arc::new(move || {
//!             let bus: Arc<dyn Bus> = Arc::new(bus.clone());
//!             Box::pin(async { Ok(bus) })
//!         })
//!     }),
//!     host: Arc::new(Tokio::multi_thread(2)),
//!     calls: 1000,
//! };
//! for case in cases() {
//!     println!("{}: {:?}", case.id, run(case, &subject));
//! }
//! ```
//!
//! As commands: `cargo run -p psrpc-conformance -- list`, and `-- run --bus local: --runtime
//! tokio`.

#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod buses;
mod case;
mod cases;
mod env;
mod foreign;
pub mod runtime;
mod shop;

pub use buses::bus;
pub use case::{Case, Connect, Connecting, Subject, Verdict, run};
pub use cases::cases;
pub use env::Env;

/// The services that the cases use, as generated.
#[allow(missing_docs, reason = "the messages' fields are documented in proto/shop.proto")]
pub mod proto {
    psrpc::include_proto!("conformance.v1");
}
