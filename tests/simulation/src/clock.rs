//! Clocks: each node reads two of its own, which differ from the virtual time of the run.

use std::time::Duration;

use psrpc_engine::{Now, Time, WallTime};

/// The two clocks of a node. They go as fast as virtual time does, and start elsewhere.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    /// What the monotonic clock showed when the run began.
    pub(crate) monotonic: Duration,
    /// What the wall clock showed when the run began.
    pub(crate) wall: WallTime,
}

/// What a wall clock showed then that is right; far from zero, as it is in life.
pub(crate) const EPOCH: WallTime = WallTime::from_unix_nanos(1_795_345_422_000_000_000);

impl Clock {
    /// What the clocks show at a virtual time.
    pub(crate) fn at(&self, time: Time) -> Now {
        Now { time: time + self.monotonic, wall: self.wall + time.since(Time::ZERO) }
    }

    /// Whether its wall clock is wrong.
    pub(crate) fn is_skewed(&self) -> bool {
        self.wall != EPOCH
    }

    /// The virtual time at which the monotonic clock shows `own`.
    pub(crate) fn virtual_time(&self, own: Time) -> Time {
        Time::ZERO + own.since(Time::ZERO + self.monotonic)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reading_leads_back_to_its_virtual_time() {
        let clock = Clock { monotonic: Duration::from_secs(7), wall: WallTime::from_unix_nanos(1000) };
        let now = clock.at(Time::from_nanos(5));
        assert_eq!(now, Now { time: Time::from_nanos(7_000_000_005), wall: WallTime::from_unix_nanos(1005) });
        assert_eq!(clock.virtual_time(now.time), Time::from_nanos(5));
    }
}
