//! PSRPC on smol: all of [`psrpc`], and the [`SmolRuntime`] that it runs on.
//!
//! The one crate to depend on, under the name `psrpc`, which generated code looks for:
//!
//! ```toml
//! psrpc = { package = "psrpc-smol", version = "0.1" }
//! ```
//!
//! With the feature `async-std` there is an `AsyncStdRuntime` too, for those who still have
//! async-std: it is discontinued.

#![forbid(unsafe_code)]
#![deny(missing_docs, missing_debug_implementations)]

#[cfg(feature = "async-std")]
mod async_std;
mod clock;

use psrpc::proto::Seed;
#[doc(inline)]
pub use psrpc::*;
use smol::Timer;

#[cfg(feature = "async-std")]
pub use self::async_std::AsyncStdRuntime;

/// Returns smol's global executor, for clients and servers created without an explicit runtime.
///
/// # Errors
///
/// Never returns an error: smol's executor is always available.
pub fn default_runtime() -> Result<SmolRuntime, Error> {
    Ok(SmolRuntime)
}

/// A [`Runtime`] on smol's global executor.
///
/// The executor has its own threads: one, or the number in the environment variable `SMOL_THREADS`.
/// It can therefore be used from any thread, whatever else the program runs on.
#[derive(Clone, Copy, Debug, Default)]
pub struct SmolRuntime;

impl Runtime for SmolRuntime {
    fn now(&self) -> Now {
        clock::now()
    }

    fn seed(&self) -> Seed {
        seed()
    }

    fn sleep_until(&self, deadline: Time) -> Task {
        let timer = Timer::at(clock::instant(deadline));
        Box::pin(async {
            timer.await;
        })
    }

    fn spawn(&self, task: Task) {
        smol::spawn(task).detach();
    }
}

fn seed() -> Seed {
    let mut seed = Seed::default();
    #[expect(clippy::disallowed_methods, reason = "runtimes provide the seeds")]
    getrandom::fill(&mut seed).expect("the operating system must provide random numbers");
    seed
}
