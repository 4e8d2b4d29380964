//! The common parts of the buses of PSRPC that connect to servers, `psrpc-bus-redis` and
//! `psrpc-bus-nats`. Programs use them through those crates.

#![forbid(unsafe_code)]
#![deny(missing_docs, missing_debug_implementations)]

mod backoff;
mod outage;
mod provider;
#[cfg(feature = "tls")]
mod tls;

pub use self::backoff::delay;
pub use self::outage::Outage;
pub use self::provider::{Provider, ProviderError};
#[cfg(feature = "tls")]
pub use self::tls::TlsOptions;
