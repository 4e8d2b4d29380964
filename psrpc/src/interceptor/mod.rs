//! Interceptors and hooks.
//!
//! A call without interceptors and hooks bypasses this module.

mod call;
mod chain;
mod handler;
mod hooks;
mod multi;
mod recovery;
mod stream;

pub(crate) use self::call::CallChain;
pub use self::call::{CallInterceptor, CallOptions, NextCall, OutgoingCall};
pub(crate) use self::chain::{ClientInterceptors, ServerInterceptors};
pub(crate) use self::handler::HandlerChain;
pub use self::handler::{HandlerInterceptor, NextHandler};
pub(crate) use self::multi::MultiCallChain;
pub use self::multi::{MultiCallInterceptor, NextMultiCall};
pub(crate) use self::recovery::report_panics;
pub(crate) use self::stream::SendChain;
pub use self::stream::{InterceptedStream, NextSend, OpeningStream, SendOptions, StreamInterceptor};
