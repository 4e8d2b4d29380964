//! What is around a call: interceptors and hooks.
//!
//! A call without any passes none of this.

mod around;
mod call;
mod handler;
mod hooks;
mod multi;
mod recovery;
mod stream;

pub(crate) use self::around::{AroundCalls, AroundHandlers};
pub(crate) use self::call::CallBelow;
pub use self::call::{CallInterceptor, CallOptions, NextCall, OutgoingCall};
pub(crate) use self::handler::HandlerBelow;
pub use self::handler::{HandlerInterceptor, NextHandler};
pub(crate) use self::multi::MultiCallBelow;
pub use self::multi::{MultiCallInterceptor, NextMultiCall};
pub(crate) use self::recovery::reporting;
pub(crate) use self::stream::SendBelow;
pub use self::stream::{InterceptedStream, NextSend, OpeningStream, SendOptions, StreamInterceptor};
