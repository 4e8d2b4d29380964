//! What comes with psrpc to be put around calls, handlers and streams.
//!
//! | what | how |
//! |---|---|
//! | calls that failed are made again, and messages of streams sent again | [`Retry`], an interceptor |
//! | calls, handlers and streams are measured | [`ClientOptions::metrics`](crate::ClientOptions::metrics), [`ServerOptions::metrics`](crate::ServerOptions::metrics) |
//! | what becomes of requests, frames and streams is told | [`ServerOptions::observer`](crate::ServerOptions::observer), [`ClientOptions::observer`](crate::ClientOptions::observer) |
//! | calls, handlers and streams are traced | `OpenTelemetry`, an interceptor, with the feature `opentelemetry` |
//! | panics of handlers are reported | [`ServerOptions::on_panic`](crate::ServerOptions::on_panic) |

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
