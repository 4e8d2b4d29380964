//! RPC over publish/subscribe: typed clients and servers on any bus and any async runtime.
//!
//! Services call each other through a message bus instead of by address. A [`Client`] publishes a
//! request; the [`Server`]s of the service bid for it with an affinity; the client grants the best
//! one; it answers. Most programs use neither directly but what `psrpc-build` generates from a
//! .proto, and depend on an adapter crate such as `psrpc-tokio`, which re-exports all of this under
//! the name `psrpc` together with its runtime.
//!
//! # A service
//!
//! ```proto
//! service Hats {
//!   rpc Make(Order) returns (Hat) { option (psrpc.options).type = AFFINITY; }
//! }
//! ```
//!
//! `psrpc_build::compile(&["proto/hats.proto"], &["proto"])?` in `build.rs` and
//! `psrpc::include_proto!("hats.v1")` in the code give:
//!
//! * the trait `Hats`, to implement: `async fn make(&self, order: Request<Order>) -> Result<Hat,
//!   Error>` and, since the method is routed by affinity, `fn make_affinity(&self, order:
//!   &Request<Order>) -> f32`;
//! * `HatsServer::new(bus, implementation).await?`, which serves it;
//! * `HatsClient::new(bus).await?`, whose `make(order)` is a [`Call`] to await;
//! * the trait `HatsApi` of what the client does, so that something else can take its place in unit
//!   tests.
//!
//! # Kinds of methods
//!
//! | in the .proto | the client has | the server has |
//! |---|---|---|
//! | nothing | `make(order)`, a [`Call`]: one server answers | `async fn make(&self, Request<Order>) -> Result<Hat, Error>` |
//! | `type = MULTI` | `census(ask)`, a [`MultiCall`]: every server answers, as a stream of [`Responses`] | the same |
//! | `stream = true` | `parade()`, an [`OpenStream`] for a [`ClientStream`] | `async fn parade(&self, ServerStream<..>) -> Result<(), Error>` |
//! | `subscription = true` | `subscribe_rumour()`, for a [`Subscription`] | `publish_rumour(&update)` on the `HatsServer` |
//!
//! # How a method is routed
//!
//! | in the .proto | what happens |
//! |---|---|
//! | nothing, or `type = QUEUE` | the bus hands each request to one server, which runs it once the client grants it |
//! | `type = AFFINITY` | every server sees the request and bids with its affinity; the client picks one ([`Selection`]) |
//! | `type = MULTI` | every server answers; of a subscription, every client gets every update |
//! | `topics = true` | calls go to the servers that registered that topic; the parameters come before the request |
//! | `topic_params.single_server = true` | there is nothing to grant; that each topic has one server alone is up to you |
//!
//! # What may be around a call
//!
//! | what | where | set by |
//! |---|---|---|
//! | request and response hooks, which see | around all else, in the client | [`ClientOptions::request_hook`], [`response_hook`](ClientOptions::response_hook) |
//! | interceptors, which change | the client's, the first outermost | [`ClientOptions::interceptor`] |
//! | interceptors of one call | within the client's | [`Call::interceptor`] |
//! | interceptors of handlers | in the server, the first outermost | [`ServerOptions::interceptor`] |
//! | interceptors of multi calls | as those of calls | [`ClientOptions::multi_interceptor`], [`MultiCall::interceptor`] |
//! | interceptors of streams | on both sides, the first outermost | [`ClientOptions::stream_interceptor`], [`ServerOptions::stream_interceptor`], [`OpenStream::interceptor`] |
//!
//! A call without any of it pays for none of it. Options are sets: [`ClientOptions::with`],
//! [`ServerOptions::with`] and [`Call::options`] add one to another.
//!
//! # What dropping does
//!
//! | what | is dropped |
//! |---|---|
//! | a [`Call`] or its future | the call is canceled; if it was not granted yet, it runs nowhere |
//! | [`Responses`] | the call is over; servers that were asked still run it |
//! | a [`ClientStream`] or [`ServerStream`] | it is closed; in a handler, with the handler's result once it returns |
//! | the future of a send | nobody waits for the message, which may arrive |
//! | a [`Subscription`] | the client unsubscribes |
//! | the last clone of a [`Client`] | it is closed, once its calls, streams and subscriptions are gone |
//! | the last clone of a [`Server`] | it shuts down in the background: what it accepted is finished, nothing new is taken |
//! | a handler's future | by psrpc, at the request's deadline and when the server is killed |
//!
//! A panic in a handler fails its call alone, with `internal`; one in an affinity function makes no
//! bid; one in a selection function fails its call with `internal`. An interceptor of a handler is
//! part of the handler; what is around a call in a client is part of the caller, to whom a panic
//! goes. What is around a stream may not want a message, and so it is with a panic in it; one in
//! the opening of a stream ends it in the server, and goes to the caller in the client.
//!
//! # Which runtime runs what
//!
//! | what | runs on |
//! |---|---|
//! | the background task of a client or server, which takes frames and ends calls in time; functions of affinity, selection and election; observers; what stream interceptors receive | the runtime that the client or server was created on |
//! | handlers, and the interceptors around them | the runtime that the server was created on |
//! | the futures of calls, streams, sends and subscriptions, and the interceptors around calls | whatever executor polls them |
//! | the connections of a Redis bus, and the encoding of frames | the runtime that the bus was given when it connected |
//! | the connection of a NATS bus | the runtime given to `connect`, if it is tokio; else a thread of its own |
//! | the in-process bus | the caller of `publish` |
//!
//! When the runtime of a client or server shuts down, or its background task panics, everything
//! that is pending fails at once with [`Reason::RuntimeEnded`], and so does everything later: the
//! client or server is of no use any more, and trying again does not help. A client that outlives a
//! runtime, such as one in a `static` that several `#[tokio::test]`s share, needs a runtime that
//! lives as long: give it one with `with_runtime`. A runtime that is alive but that nobody drives,
//! as one between two `block_on`s of a single thread, runs nothing meanwhile, and calls wait.
//!
//! # When a call fails
//!
//! Its [`Error`] has a code, a text, a [`Reason`] and what is known of the cause, which
//! [`Error::explanation`] puts into words; its `Display` form has all of it. An error of the
//! server's own has [`Reason::Answered`]. A handler turns any error into one with [`ResultExt`].
//! [`Error`] lists what else it can be asked, as whose fault it was and whether the handler may
//! have run.
//!
//! # Tests of your service
//!
//! A `FaultyBus` of the crate `psrpc-testing` around any bus loses, delays, duplicates, reorders
//! and refuses frames as a test asks. What a fake of a client gives is made by [`Call::fake`],
//! [`MultiCall::fake`], [`OpenStream::fake`] with its `stream_pair`, and [`Subscribe::fake`].
//!
//! # What is logged
//!
//! Through the `tracing` crate, and only what is rare. What peers say is escaped.
//!
//! | target | level | what |
//! |---|---|---|
//! | `psrpc::client` | debug | a frame was dropped, with its reason |
//! | `psrpc::client` | error | a selection function, an observer or what is around a stream panicked |
//! | `psrpc::server` | debug | a frame was dropped, with its reason; for an expired request, by how much it was late |
//! | `psrpc::server` | error | a handler, an affinity or election function, an observer or what is around a stream panicked |
//! | `psrpc::server` | error | a handler failed with an error that was made of another one, with the `causes`; debug, where it is the caller's fault by its code |
//! | `psrpc` | error | the background task of a client or server panicked |
//! | `psrpc::bus` | warn | the bus lost its connection, stopped, refused locks or dropped frames, once per client or server, with a count; subscriptions are interrupted; frames may be lost; a registration or a client's subscriptions are |
//! | `psrpc::bus` | info | the bus is connected again; subscriptions are live again |
//! | `psrpc::bus` | debug | the channel that an event of the bus is about |
//!
//! Each has the fields `service` and `id`, of the client or server that it happened to. Panics and
//! failed handlers have instead the `service`, the `method` and the `request_id`, where there is
//! one, and panics their message (`panic`).
//!
//! # Your own bus or runtime
//!
//! [`bus::Bus`] has two functions that matter, [`Runtime`] has four. Both are checked by the cases
//! of `psrpc-conformance`. The names that a bus needs, [`Channel`](proto::Channel) and
//! [`Frame`](proto::Frame), are in [`proto`].
//!
//! Without an adapter crate there is no default runtime: depend on `psrpc` itself, have the code
//! generated with `Config::default_runtime(false)`, and make clients and servers by
//! `with_runtime(bus, runtime, ...)`.

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
