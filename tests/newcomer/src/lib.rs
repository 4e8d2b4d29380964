//! The service that the examples in `tests/mistakes/` use.

#![forbid(unsafe_code)]

pub use psrpc;

/// A hat shop.
#[allow(missing_docs, reason = "generated from messages without comments")]
pub mod hats {
    psrpc::include_proto!("hats.v1");
}
