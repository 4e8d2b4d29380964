//! A service as a newcomer has it, for the mistakes in `tests/mistakes/`.

#![forbid(unsafe_code)]

pub use psrpc;

/// A shop of hats.
#[allow(missing_docs, reason = "generated from messages without comments")]
pub mod hats {
    psrpc::include_proto!("hats.v1");
}
