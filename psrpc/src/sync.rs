//! What threads share state through: of the standard library, and in the build of `tests/threads` of shuttle, which decides
//! there which thread runs next.

#[cfg(psrpc_shuttle)]
pub(crate) use shuttle::sync::{Mutex, MutexGuard, Once, atomic::AtomicBool};
#[cfg(not(psrpc_shuttle))]
pub(crate) use std::sync::{Mutex, MutexGuard, Once, atomic::AtomicBool};
