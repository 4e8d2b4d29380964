//! Middleware that comes with psrpc.
//!
//! | purpose | how |
//! |---|---|
//! | retry failed calls, and sends on streams | [`Retry`], an interceptor |
//! | measure calls, handlers and streams | [`ClientOptions::metrics`](crate::ClientOptions::metrics), [`ServerOptions::metrics`](crate::ServerOptions::metrics) |
//! | observe requests, dropped frames and streams | [`ServerOptions::observer`](crate::ServerOptions::observer), [`ClientOptions::observer`](crate::ClientOptions::observer) |
//! | trace calls, handlers and streams | `OpenTelemetry`, an interceptor, with the feature `opentelemetry` |
//! | report panics of handlers | [`ServerOptions::on_panic`](crate::ServerOptions::on_panic) |

mod metrics;
mod observer;
#[cfg(feature = "opentelemetry")]
mod opentelemetry;
mod retry;

pub(crate) use self::metrics::Metrics;
pub use self::metrics::{MetricsObserver, MultiCall, StreamSent, UnaryCall};
pub use self::observer::{BidOutcome, Observation};
pub(crate) use self::observer::{Observers, PendingObservation, Watch};
#[cfg(feature = "opentelemetry")]
pub use self::opentelemetry::OpenTelemetry;
pub use self::retry::{Attempt, Attempts, Retry};
pub use crate::info::Side;
