//! The PSRPC wire format.
//!
//! * [`Frame`]: the messages of the protocol in their envelope, with a zero-copy codec
//!   ([`Frame::encode`], [`Frame::decode`]).
//! * [`Channel`]: the names of a service's channels on each bus.
//! * [`MethodProperties`]: how the calls of a method are routed, from the options of its rpc.
//! * [`ErrorCode`]: error codes, with their HTTP, gRPC and Twirp equivalents.
//! * [`IdGenerator`]: draws the ids of clients, servers, requests and streams.
//!
//! The crate is `no_std` and has no clock, no randomness of its own and no I/O.
//!
//! ```
//! use psrpc_proto::{Channel, Frame, FrameLimits, Request};
//!
//! let request = Frame::Request(Request { request_id: "REQ_1".into(), ..Request::default() });
//! let channel = Channel::request("Hats", "Fit", &["paris"], true);
//! assert_eq!(channel.legacy(), "Hats|Fit|paris|REQ");
//! assert_eq!((channel.server(), channel.local()), ("SRV.Hats.paris.Q", "Fit.REQ"));
//!
//! let bytes = request.encode(channel.local());
//! let (decoded, local) = Frame::decode(&bytes, &FrameLimits::DEFAULT)?;
//! assert_eq!((decoded, local.as_str()), (request, "Fit.REQ"));
//! # Ok::<(), psrpc_proto::DecodeError>(())
//! ```

#![no_std]
#![forbid(unsafe_code)]
#![deny(missing_docs, missing_debug_implementations)]

extern crate alloc;

mod any;
mod channel;
mod claim;
mod code;
mod compression;
mod error;
mod frame;
mod gzip;
mod id;
mod limits;
mod metadata;
mod method;
mod name;
mod request;
mod response;
mod stream;
mod text;
mod wire;

pub use any::Any;
pub use channel::Channel;
pub use claim::{ClaimRequest, ClaimResponse};
pub use code::{ErrorCode, GrpcCode};
pub use compression::Compression;
pub use error::{DecodeError, DecodeErrorKind};
pub use frame::Frame;
pub use id::{IdGenerator, InvalidId, Seed, check_id};
pub use limits::FrameLimits;
pub use metadata::Metadata;
pub use method::{MethodProperties, Routing, RoutingOptions};
pub use name::wire_name;
pub use request::Request;
pub use response::{ErrorResponse, Response};
pub use stream::{Stream, StreamBody};
pub use text::Text;
