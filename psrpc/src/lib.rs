//! RPC over publish/subscribe: typed clients and servers on any bus and any async runtime.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod bus;
mod call;
mod client;
mod driver;
mod error;
mod handler;
mod inbox;
mod method;
mod runtime;
mod selection;
mod server;
mod waiting;

pub use psrpc_engine as engine;
pub use psrpc_engine::proto;

pub use psrpc_engine::proto::{ErrorCode, GrpcCode, Metadata, MethodProperties, Routing, Text};
pub use psrpc_engine::{
    BusError, Claim, ClientLimits, Counters, Evidence, Now, Reason, ServerLimits, SubscriptionKind, Time,
    WallTime,
};

pub use call::{Call, Calling};
pub use client::{Client, ClientOptions};
pub use error::Error;
pub use handler::Request;
pub use method::{Method, Service};
pub use runtime::{Runtime, Task};
pub use selection::Selection;
pub use server::{Handlers, Server, ServerOptions};

/// Includes the code that `psrpc-build` generated for a protobuf package, by the package's name; `"_"` for none.
#[macro_export]
macro_rules! include_proto {
    ($package:tt) => {
        include!(concat!(env!("OUT_DIR"), concat!("/", $package, ".rs")));
    };
}
