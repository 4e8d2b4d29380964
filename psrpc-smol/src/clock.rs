//! The clock of every runtime in this crate. All use one origin, so a deadline has the same meaning
//! on each of them.

use std::sync::OnceLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use psrpc::{Now, Time, WallTime};

fn origin() -> Instant {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    #[expect(clippy::disallowed_methods, reason = "runtimes provide the clock")]
    *ORIGIN.get_or_init(Instant::now)
}

pub(crate) fn now() -> Now {
    let since_origin = origin().elapsed();
    #[expect(clippy::disallowed_methods, reason = "runtimes provide the clock")]
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Now { time: Time::ZERO + since_origin, wall: WallTime::default() + since_epoch }
}

pub(crate) fn instant(time: Time) -> Instant {
    origin() + time.since(Time::ZERO)
}
