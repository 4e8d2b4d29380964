//! Clocks: each node has a monotonic clock and a wall clock, which differ from the virtual time of
//! the run.

use std::time::Duration;

use psrpc_engine::{Now, Time, WallTime};

/// The two clocks of a node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    /// The reading of the monotonic clock at the start of the run.
    pub(crate) monotonic: Duration,
    /// The reading of the wall clock at the start of the run, without its jumps.
    pub(crate) wall: WallTime,
    /// How much faster than virtual time both clocks run, in millionths.
    pub(crate) drift: i32,
    /// The sum of all jumps of the wall clock, in nanoseconds.
    pub(crate) jump_nanos: i64,
}

/// The reading of an accurate wall clock at the start of a run. Like a real one, it is far from
/// zero.
pub(crate) const EPOCH: WallTime = WallTime::from_unix_nanos(1_795_345_422_000_000_000);

/// The limit for the sum of all jumps of a wall clock, in nanoseconds and in either direction.
const MAX_JUMP: i64 = 3_000_000_000;

const MILLION: i128 = 1_000_000;

impl Clock {
    /// Accurate clocks.
    pub(crate) const ACCURATE: Clock =
        Clock { monotonic: Duration::ZERO, wall: EPOCH, drift: 0, jump_nanos: 0 };

    /// Returns the readings of both clocks at a virtual time.
    pub(crate) fn at(&self, time: Time) -> Now {
        let elapsed = self.elapsed(time);
        let began = WallTime::from_unix_nanos(self.wall.as_unix_nanos() + self.jump_nanos);
        Now { time: Time::ZERO + self.monotonic + elapsed, wall: began + elapsed }
    }

    /// Returns `true` if the wall clock started with an error.
    pub(crate) fn is_skewed(&self) -> bool {
        self.wall != EPOCH
    }

    /// Moves the wall clock ahead, or back.
    pub(crate) fn jump(&mut self, nanos: i64) {
        self.jump_nanos = (self.jump_nanos + nanos).clamp(-MAX_JUMP, MAX_JUMP);
    }

    /// Undoes all jumps of the wall clock.
    pub(crate) fn undo_jumps(&mut self) {
        self.jump_nanos = 0;
    }

    /// Returns the first virtual time at which the monotonic clock shows `reading` or more.
    pub(crate) fn virtual_time(&self, reading: Time) -> Time {
        let elapsed = reading.since(Time::ZERO + self.monotonic);
        if self.drift == 0 {
            return Time::ZERO + elapsed;
        }
        let elapsed = i128::from(elapsed.as_nanos() as u64);
        let mut nanos = (elapsed * MILLION / (MILLION + i128::from(self.drift))) as u64;
        // Both divisions round, so the result can be off by one or two nanoseconds.
        let reading_at = |nanos| self.at(Time::from_nanos(nanos)).time;
        while nanos > 0 && reading_at(nanos - 1) >= reading {
            nanos -= 1;
        }
        while reading_at(nanos) < reading {
            nanos += 1;
        }
        Time::from_nanos(nanos)
    }

    fn elapsed(&self, time: Time) -> Duration {
        if self.drift == 0 {
            return time.since(Time::ZERO);
        }
        let nanos = i128::from(time.as_nanos());
        Duration::from_nanos((nanos + nanos * i128::from(self.drift) / MILLION) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLOCK: Clock =
        Clock { monotonic: Duration::from_secs(7), wall: WallTime::from_unix_nanos(1000), ..Clock::ACCURATE };

    #[test]
    fn a_reading_converts_back_to_its_virtual_time() {
        let now = CLOCK.at(Time::from_nanos(5));
        assert_eq!(now, Now { time: Time::from_nanos(7_000_000_005), wall: WallTime::from_unix_nanos(1005) });
        assert_eq!(CLOCK.virtual_time(now.time), Time::from_nanos(5));
    }

    #[test]
    fn the_first_virtual_time_of_a_reading_is_found_for_any_drift() {
        for drift in [-500_000, -300, -1, 0, 1, 300, 500_000] {
            let clock = Clock { drift, ..CLOCK };
            for reading in (7_000_000_000..7_000_000_050).chain(19_999_999_990..20_000_000_010) {
                let reading = Time::from_nanos(reading);
                let found = clock.virtual_time(reading);
                assert!(clock.at(found).time >= reading, "{drift} {reading:?}");
                let before =
                    found.as_nanos().checked_sub(1).map(|before| clock.at(Time::from_nanos(before)).time);
                assert!(before.is_none_or(|before| before < reading), "{drift} {reading:?}");
            }
        }
    }

    #[test]
    fn a_jump_moves_the_wall_clock_alone() {
        let mut clock = CLOCK;
        clock.jump(-600);
        assert_eq!(clock.at(Time::from_nanos(5)).wall, WallTime::from_unix_nanos(405));
        assert_eq!(clock.at(Time::from_nanos(5)).time, CLOCK.at(Time::from_nanos(5)).time);
        clock.undo_jumps();
        assert_eq!(clock.at(Time::from_nanos(5)), CLOCK.at(Time::from_nanos(5)));
    }
}
