//! The two clocks that the driver hands in, and the expiry of requests.

use core::ops::Add;
use core::time::Duration;

use crate::reason::Reason;

/// A point on the monotonic clock, in nanoseconds since an origin that the caller chooses. Timers
/// use this clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(u64);

impl Time {
    /// The origin.
    pub const ZERO: Time = Time(0);

    /// Creates the point `nanos` nanoseconds after the origin.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Returns the nanoseconds since the origin.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Returns the time from `earlier` to `self`; zero if `earlier` is later.
    pub const fn since(self, earlier: Time) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Time {
    type Output = Time;

    /// Saturates at the end of time, some 584 years after the origin.
    fn add(self, duration: Duration) -> Time {
        Time(self.0.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }
}

/// A point on the wall clock, in nanoseconds since the Unix epoch, as on the wire. No timer uses
/// this clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WallTime(i64);

impl WallTime {
    /// Creates the point `nanos` nanoseconds after the Unix epoch.
    pub const fn from_unix_nanos(nanos: i64) -> Self {
        Self(nanos)
    }

    /// Returns the nanoseconds since the Unix epoch.
    pub const fn as_unix_nanos(self) -> i64 {
        self.0
    }

    /// Returns the time from `earlier` to `self`; zero if `earlier` is later.
    pub const fn since(self, earlier: WallTime) -> Duration {
        // The difference of two i64 fits into a u64 when it is positive.
        if self.0 > earlier.0 {
            Duration::from_nanos(self.0.wrapping_sub(earlier.0) as u64)
        } else {
            Duration::ZERO
        }
    }
}

impl Add<Duration> for WallTime {
    type Output = WallTime;

    /// Saturates in the year 2262.
    fn add(self, duration: Duration) -> WallTime {
        WallTime(self.0.saturating_add(i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)))
    }
}

/// Both clocks, read at the same moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// The monotonic clock.
    pub time: Time,
    /// The wall clock.
    pub wall: WallTime,
}

/// Proof that a request was not expired by either clock. Starting a handler requires it.
pub(crate) struct NotExpired(());

/// How late an expired request is, or how far in the future a request was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Expired {
    pub(crate) by: Duration,
}

/// The expiry of a request, by both clocks.
///
/// The wall time comes from the request, and is the same for each of its duplicates. The monotonic
/// time is computed once, on receipt, so a jump of the wall clock moves no timer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expiry {
    wall: WallTime,
    time: Time,
    /// The lifetime of the request by the sender's clock, plus the allowance.
    lifetime: Duration,
}

impl Expiry {
    /// Computes the expiry of a frame that arrives at `now` from its send time and expiry in Unix
    /// nanoseconds. Returns the reason if the frame must be dropped.
    pub(crate) fn of_frame(
        now: Now,
        sent_at: i64,
        expiry: i64,
        horizon: Duration,
        allowance: Duration,
    ) -> Result<Self, (Reason, Expired)> {
        let expiry = WallTime::from_unix_nanos(expiry);
        let (sent_at, ahead) = match sent_at {
            // The peer gave no send time. Its expiry is not moved to the horizon, because the
            // result would differ for each duplicate.
            ..=0 => (now.wall, expiry),
            sent_at => (WallTime::from_unix_nanos(sent_at), WallTime::from_unix_nanos(sent_at)),
        };
        if ahead > now.wall + horizon {
            return Err((Reason::FarFuture, Expired { by: ahead.since(now.wall) }));
        }
        Self::on_receipt(now, sent_at, expiry, horizon, allowance)
            .map_err(|expired| (Reason::Expired, expired))
    }

    /// Computes the expiry of a request that arrives at `now`.
    ///
    /// An expiry more than `horizon` after `sent_at` is moved to that limit. `allowance` is added
    /// for skewed clocks.
    pub(crate) fn on_receipt(
        now: Now,
        sent_at: WallTime,
        expiry: WallTime,
        horizon: Duration,
        allowance: Duration,
    ) -> Result<Self, Expired> {
        let expiry = expiry.min(sent_at + horizon);
        let wall = expiry + allowance;
        let expires =
            Self { wall, time: now.time + wall.since(now.wall), lifetime: expiry.since(sent_at) + allowance };
        expires.check(now).map(|_| expires)
    }

    /// Checks that the request has not expired by either clock.
    pub(crate) fn check(&self, now: Now) -> Result<NotExpired, Expired> {
        if now.wall >= self.wall || now.time >= self.time {
            return Err(Expired { by: now.wall.since(self.wall).max(now.time.since(self.time)) });
        }
        Ok(NotExpired(()))
    }

    /// Returns the expiry by the wall clock.
    pub(crate) fn wall(&self) -> WallTime {
        self.wall
    }

    /// Returns the expiry by the monotonic clock.
    pub(crate) fn time(&self) -> Time {
        self.time
    }

    /// Returns the lifetime of the request by the sender's clock, plus the allowance.
    pub(crate) fn lifetime(&self) -> Duration {
        self.lifetime
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn now(time: u64, wall: i64) -> Now {
        Now { time: Time::from_nanos(time), wall: WallTime::from_unix_nanos(wall) }
    }

    fn wall(nanos: i64) -> WallTime {
        WallTime::from_unix_nanos(nanos)
    }

    #[test]
    fn time_saturates() {
        assert_eq!(Time::from_nanos(u64::MAX) + SECOND, Time::from_nanos(u64::MAX));
        assert_eq!(wall(i64::MAX) + Duration::MAX, wall(i64::MAX));
        assert_eq!(wall(i64::MAX).since(wall(i64::MIN)), Duration::from_nanos(u64::MAX));
        assert_eq!(wall(i64::MIN).since(wall(i64::MAX)), Duration::ZERO);
    }

    #[test]
    fn a_request_is_expired_at_its_expiry_and_not_a_nanosecond_before() {
        let receive =
            |at| Expiry::on_receipt(now(0, at), wall(0), wall(100), SECOND, Duration::from_nanos(5));
        assert!(receive(104).is_ok());
        assert_eq!(receive(105).unwrap_err(), Expired { by: Duration::ZERO });
        assert_eq!(receive(205).unwrap_err(), Expired { by: Duration::from_nanos(100) });
    }

    #[test]
    fn a_jump_of_the_wall_clock_moves_no_deadline_but_expires_a_request() {
        let expiry = Expiry::on_receipt(now(50, 10), wall(0), wall(100), SECOND, Duration::ZERO).unwrap();
        assert_eq!(expiry.time(), Time::from_nanos(140));
        assert!(expiry.check(now(60, 99)).is_ok());
        assert!(expiry.check(now(60, 100)).is_err(), "the wall clock jumped ahead");
        assert!(expiry.check(now(140, 10)).is_err(), "the wall clock was set back");
    }

    #[test]
    fn an_expiry_beyond_the_horizon_is_moved_there() {
        let far = wall(i64::MAX);
        let expiry = Expiry::on_receipt(now(0, 7), wall(7), far, SECOND, Duration::ZERO).unwrap();
        assert_eq!(expiry.time(), Time::ZERO + SECOND);
        assert_eq!(expiry.lifetime(), SECOND);
    }
}
