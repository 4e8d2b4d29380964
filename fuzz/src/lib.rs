//! The fuzz targets. See `README.md` for how to run them.

#![forbid(unsafe_code)]

pub mod bus;
pub mod channel;
pub mod client;
pub mod compiler;
pub mod frame;
pub mod nats_payload;
pub mod redis_payload;
pub mod server;

mod driven;
mod input;
mod listener;
mod peer;
mod streams;
