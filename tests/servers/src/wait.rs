//! Waiting for servers. They do not report when they are ready, so tests poll them.

use std::thread;
use std::time::{Duration, Instant};

/// How long several servers may take to agree. Elections among them take seconds on a busy machine.
const AT_MOST: Duration = Duration::from_secs(60);

/// How long one server may take to respond.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(5);

/// Polls until the condition holds.
///
/// # Panics
///
/// Panics if it does not hold after [`AT_MOST`].
pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = now();
    while !condition() {
        assert!(now() - begun < AT_MOST, "timed out after {AT_MOST:?} waiting until {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

#[expect(clippy::disallowed_methods, reason = "real servers live in real time")]
pub(crate) fn now() -> Instant {
    Instant::now()
}
