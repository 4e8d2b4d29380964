//! The driver under every interleaving of its threads that shuttle tries.
//!
//! `./test threads`, or
//! `RUSTFLAGS="--cfg psrpc_shuttle" cargo test -p psrpc-threads --profile threads --target-dir
//! target/threads`.
//!
//! Without that cfg there is nothing here. With it the locks of `psrpc` and `psrpc-bus-local` are
//! shuttle's, and so is the runtime of these tests, `Threads`: one thread runs at a time, and at
//! every lock and every wait a scheduler says which. Each test is one scenario, run under some
//! thousands of schedules. A wake-up that is lost leaves a thread that waits for ever, which
//! shuttle reports as a deadlock; time passes only where a scenario says so.
//!
//! The same seed gives the same schedules, so what fails once fails each time. `THREADS_SEED` sets
//! another one, and `THREADS_TIMES` multiplies how many schedules are tried. Shuttle knows no
//! memory orders weaker than sequential consistency.

#![forbid(unsafe_code)]
#![cfg(psrpc_shuttle)]

mod carrier;
mod clock;
mod explore;
mod inline;
mod shop;
mod threads;

pub use carrier::Carrier;
pub use clock::Clock;
pub use explore::{explore, explore_all};
pub use inline::Inline;
pub use shop::{Shop, client, client_on, shop, shop_on};
pub use threads::Threads;
