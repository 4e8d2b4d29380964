//! RPC over publish/subscribe: typed clients and servers on any bus and any async runtime.
//!
//! Your services call each other through a message bus instead of by address. A [`Client`]
//! publishes a request, the [`Server`]s of the service bid for it with an affinity, and the client
//! grants the best bid.
//!
//! Most programs depend on `psrpc-tokio` or `psrpc-smol`, which re-export this crate together with
//! a runtime, and use clients and servers that `psrpc-build` generates from a .proto.
//!
#![doc = include_str!("guide.md")]
#![forbid(unsafe_code)]
#![deny(missing_docs, missing_debug_implementations)]

pub mod bus;
mod cancellation;
mod client;
mod driver;
mod error;
mod guard;
mod info;
mod interceptor;
mod log;
mod message;
mod method;
pub mod middleware;
mod options;
mod request;
mod responses;
mod runtime;
mod selection;
mod server;
mod stream;
mod sync;
mod waiting;

pub use psrpc_engine as engine;
pub use psrpc_engine::proto;

pub use psrpc_engine::proto::{ErrorCode, GrpcCode, Metadata, MethodProperties, Routing, Text};
pub use psrpc_engine::{
    Bid, BusError, ClientLimits, Counters, Dropped, Evidence, Now, Reason, Refusal, ServerLimits,
    SlowConsumer, StreamLimits, SubscriptionKind, Time, WallTime,
};

pub use client::Client;
pub use client::multi::MultiCall;
pub use client::open_stream::OpenStream;
pub use client::options::ClientOptions;
pub use client::subscription::{Subscribe, Subscription};
pub use client::unary::{Call, CallFuture};
pub use client::within::HandlerInput;
pub use error::{Error, Fault, ResultExt};
pub use info::CallInfo;
pub use interceptor::{
    CallInterceptor, CallOptions, HandlerInterceptor, InterceptedStream, MultiCallInterceptor, NextCall,
    NextHandler, NextMultiCall, NextSend, OpeningStream, OutgoingCall, SendOptions, StreamInterceptor,
};
pub use message::AnyMessage;
pub use method::{Method, MethodKind, Service};
pub use request::Request;
pub use responses::{Response, Responses};
pub use runtime::{BoxFuture, Runtime, Task};
pub use selection::Selection;
pub use server::{Handlers, Publish, Server, ServerOptions};
pub use stream::{
    AtClient, AtServer, BiStream, ClientStream, PendingSend, RecvHalf, SendHalf, SendSink, ServerStream,
};

/// Includes the code that `psrpc-build` generated for a protobuf package. Takes the name of the
/// package, or `"_"` for files without one.
#[macro_export]
macro_rules! include_proto {
    ($package:tt) => {
        include!(concat!(env!("OUT_DIR"), concat!("/", $package, ".rs")));
    };
}
