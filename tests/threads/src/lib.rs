//! Tests of the driver under many interleavings of its threads, chosen by shuttle.
//!
//! `./test threads`, or
//! `RUSTFLAGS="--cfg psrpc_shuttle" cargo test -p psrpc-threads --profile threads --target-dir
//! target/threads`.
//!
//! Without that cfg the crate is empty. With it, `psrpc` and `psrpc-bus-local` use the locks of
//! shuttle, and so does `Threads`, the runtime of these tests. One thread runs at a time; at
//! every lock and every wait, a scheduler chooses the next. Each test runs one scenario under
//! thousands of schedules.
//!
//! A lost wake-up leaves a thread waiting forever, which shuttle reports as a deadlock. Time passes
//! only when the scenario advances the clock.
//!
//! The same seed gives the same schedules, so a failure is reproducible. `THREADS_SEED` sets
//! another seed, and `THREADS_TIMES` multiplies the number of schedules. Shuttle does not simulate
//! memory orders weaker than sequential consistency.

#![forbid(unsafe_code)]
#![cfg(psrpc_shuttle)]

mod clock;
mod explore;
mod inline;
mod shop;
mod threaded_bus;
mod threads;

pub use clock::Clock;
pub use explore::{explore, explore_all};
pub use inline::InlineRuntime;
pub use shop::{Shop, client, client_on, shop, shop_on};
pub use threaded_bus::ThreadedBus;
pub use threads::Threads;
