//! What comes with psrpc to be put around calls and handlers.
//!
//! | what | how |
//! |---|---|
//! | calls that failed are made again | [`Retry`], an interceptor |
//! | calls and handlers are measured | [`ClientOptions::metrics`](crate::ClientOptions::metrics), [`ServerOptions::metrics`](crate::ServerOptions::metrics) |
//! | panics of handlers are reported | [`ServerOptions::on_panic`](crate::ServerOptions::on_panic) |

mod metrics;
mod recovery;
mod retry;

pub use self::metrics::{MetricsObserver, MultiCall, Side, StreamSent, UnaryCall};
pub(crate) use self::recovery::{PanicHook, reporting};
pub use self::retry::{Attempt, Attempts, Retry};
