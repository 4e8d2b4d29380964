//! Deduplication: accepts each request of each client once, and remembers it until it counts as
//! expired.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::core::budget::Budget;
use crate::core::map::IdentitySet;
use crate::core::time::{Expired, Expiry, Now, Time, WallTime};
use crate::core::timers::{TimerId, TimerKind, Timers};

/// A bucket holds the requests that expire within the same 2^30 nanoseconds, about a second.
const BUCKET_SHIFT: u32 = 30;

/// Remembers requests, or stream messages, by a keyed 128-bit hash of their ids, in buckets by
/// expiry.
///
/// A bucket is forgotten as a whole once its requests have expired by both clocks. The monotonic
/// clock ensures that nothing is forgotten early when the wall clock jumps ahead. The wall clock
/// decides whether a late duplicate has expired. A request that belongs in a forgotten bucket
/// counts as expired for good, even if the wall clock is later set back.
pub(crate) struct Dedup {
    seen: IdentitySet,
    buckets: BTreeMap<BucketKey, Bucket>,
    /// The latest forgotten bucket.
    forgotten: Option<BucketKey>,
    limit: usize,
}

/// A bucket, by its position in wall time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct BucketKey(i64);

impl BucketKey {
    fn of(expiry: &Expiry) -> Self {
        Self(expiry.wall().as_unix_nanos() >> BUCKET_SHIFT)
    }

    /// Returns the first moment at which every request in the bucket has expired.
    fn end(self) -> WallTime {
        let last = (1 << BUCKET_SHIFT) - 1;
        WallTime::from_unix_nanos((self.0 << BUCKET_SHIFT) | last)
    }
}

struct Bucket {
    identities: Vec<u128>,
    forget_at: Time,
    timer: Option<TimerId>,
}

/// The result of [`Dedup::admit`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    New,
    Duplicate,
    /// The request may have arrived before and been forgotten after it counted as expired. The wall
    /// clock was set back by at least this much since.
    Forgotten(Expired),
    Full,
}

impl Dedup {
    pub(crate) const fn new(limit: usize) -> Self {
        Self { seen: IdentitySet::new(), buckets: BTreeMap::new(), forgotten: None, limit }
    }

    pub(crate) fn contains(&self, identity: u128) -> bool {
        self.seen.contains(identity)
    }

    /// Remembers an identity if it is new. `owner` creates the owner of its bucket's timer.
    pub(crate) fn admit<O: Copy>(
        &mut self,
        now: Now,
        timers: &mut Timers<O>,
        identity: u128,
        expiry: &Expiry,
        owner: impl FnOnce(BucketKey) -> O,
    ) -> Admission {
        if self.contains(identity) {
            return Admission::Duplicate;
        }
        let key = BucketKey::of(expiry);
        if let Some(forgotten) = self.forgotten.filter(|forgotten| key <= *forgotten) {
            return Admission::Forgotten(Expired { by: forgotten.end().since(now.wall) });
        }
        if self.seen.len() >= self.limit {
            return Admission::Full;
        }
        let bucket = self.buckets.entry(key).or_insert_with(|| Bucket {
            identities: Vec::new(),
            forget_at: Time::ZERO,
            timer: None,
        });
        bucket.identities.push(identity);
        self.seen.insert(identity);
        // Our wall clock may be ahead and be corrected later, so the lifetime by the sender's clock
        // counts too.
        let needed = (now.time + expiry.lifetime()).max(expiry.time());
        if needed > bucket.forget_at {
            bucket.forget_at = needed.max(now.time + key.end().since(now.wall));
            match bucket.timer {
                Some(timer) => timers.rearm(timer, bucket.forget_at, TimerKind::Forget),
                None => bucket.timer = Some(timers.arm(bucket.forget_at, TimerKind::Forget, owner(key))),
            }
        }
        Admission::New
    }

    /// Handles the timer of a bucket: forgets the bucket, or keeps it until its requests count as
    /// expired. Requests beyond the budget are forgotten in the next round.
    pub(crate) fn forget<O: Copy>(
        &mut self,
        now: Now,
        timers: &mut Timers<O>,
        key: BucketKey,
        owner: impl FnOnce(BucketKey) -> O,
        budget: &mut Budget,
    ) {
        let Some(bucket) = self.buckets.get_mut(&key) else { return };
        bucket.timer = None;
        let expired = now.time + key.end().since(now.wall);
        // Compares saturated times: at the end of time the timer cannot move further, and the
        // bucket is forgotten.
        if expired > now.time {
            bucket.forget_at = expired;
            bucket.timer = Some(timers.arm(expired, TimerKind::Forget, owner(key)));
            return;
        }
        self.forgotten = self.forgotten.max(Some(key));
        let kept = bucket.identities.len().saturating_sub(budget.remaining().max(1));
        for identity in bucket.identities.drain(kept..) {
            budget.spend(1);
            self.seen.remove(identity);
        }
        if kept > 0 {
            bucket.timer = Some(timers.arm(now.time, TimerKind::Forget, owner(key)));
            return;
        }
        self.buckets.remove(&key);
        self.seen.shrink();
    }

    /// Forgets everything.
    pub(crate) fn clear<O: Copy>(&mut self, timers: &mut Timers<O>) {
        self.seen = IdentitySet::new();
        for timer in core::mem::take(&mut self.buckets).into_values().filter_map(|bucket| bucket.timer) {
            timers.disarm(timer);
        }
    }

    pub(crate) fn remembered(&self) -> usize {
        self.seen.len()
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn now(time: Duration, wall: Duration) -> Now {
        Now { time: Time::ZERO + time, wall: WallTime::default() + wall }
    }

    fn expiry(now: Now, sent_at: Duration, lifetime: Duration) -> Expiry {
        let sent_at = WallTime::default() + sent_at;
        Expiry::on_receipt(now, sent_at, sent_at + lifetime, Duration::from_secs(3600), Duration::ZERO)
            .unwrap()
    }

    /// A table with its timers, one for each bucket.
    struct Remembered {
        dedup: Dedup,
        timers: Timers<BucketKey>,
    }

    impl Remembered {
        fn new(limit: usize) -> Self {
            Self { dedup: Dedup::new(limit), timers: Timers::new() }
        }

        fn admit(&mut self, now: Now, identity: u128, expiry: &Expiry) -> Admission {
            self.dedup.admit(now, &mut self.timers, identity, expiry, |key| key)
        }

        fn kept_until(&self) -> Time {
            self.timers.next().expect("a bucket has a timer").at
        }

        fn fire_timers(&mut self, now: Now) {
            while let Some((key, _)) = self.timers.fire(now.time) {
                self.dedup.forget(now, &mut self.timers, key, |key| key, &mut Budget::round());
            }
        }
    }

    #[test]
    fn a_request_is_new_once_until_it_is_forgotten() {
        let mut table = Remembered::new(10);
        let start = now(Duration::ZERO, Duration::ZERO);
        let expires = expiry(start, Duration::ZERO, 3 * SECOND);
        assert_eq!(table.admit(start, 1, &expires), Admission::New);
        let kept_until = table.kept_until();
        assert!(kept_until >= Time::ZERO + 3 * SECOND);
        assert_eq!(table.admit(start, 1, &expires), Admission::Duplicate);
        assert_eq!(table.admit(start, 2, &expires), Admission::New);
        let after = kept_until.since(Time::ZERO);
        table.fire_timers(now(after, after));
        assert_eq!((table.dedup.remembered(), table.timers.next()), (0, None));
    }

    #[test]
    fn a_full_table_refuses_new_requests_and_evicts_nothing() {
        let mut table = Remembered::new(1);
        let start = now(Duration::ZERO, Duration::ZERO);
        let expires = expiry(start, Duration::ZERO, SECOND);
        assert_eq!(table.admit(start, 1, &expires), Admission::New);
        assert_eq!(table.admit(start, 2, &expires), Admission::Full);
        assert_eq!(table.admit(start, 1, &expires), Admission::Duplicate);
    }

    #[test]
    fn a_wall_clock_set_back_keeps_a_bucket_until_its_requests_count_as_expired_again() {
        let mut table = Remembered::new(10);
        let start = now(Duration::ZERO, 100 * SECOND);
        table.admit(start, 1, &expiry(start, 100 * SECOND, SECOND));
        table.fire_timers(now(5 * SECOND, 95 * SECOND));
        assert!(table.kept_until() >= Time::ZERO + 11 * SECOND);
        assert_eq!(table.dedup.remembered(), 1);
    }

    #[test]
    fn a_request_forgotten_while_the_wall_clock_was_ahead_is_not_new_after_it_is_set_back() {
        let mut table = Remembered::new(10);
        let start = now(Duration::ZERO, 100 * SECOND);
        let expires = expiry(start, 100 * SECOND, SECOND);
        assert_eq!(table.admit(start, 1, &expires), Admission::New);
        table.fire_timers(now(3 * SECOND, 200 * SECOND));
        assert_eq!(table.dedup.remembered(), 0);
        // By this clock the request has not expired, and its duplicate would pass as new.
        let set_back = now(4 * SECOND, 100 * SECOND);
        assert!(matches!(table.admit(set_back, 1, &expires), Admission::Forgotten(_)));
        let later = expiry(set_back, 100 * SECOND, 5 * SECOND);
        assert_eq!(table.admit(set_back, 2, &later), Admission::New);
    }

    #[test]
    fn a_wall_clock_that_is_ahead_does_not_shorten_the_lifetime_of_a_request() {
        let mut table = Remembered::new(10);
        // By our clock, only one of the three seconds is left.
        let start = now(Duration::ZERO, 2 * SECOND);
        table.admit(start, 1, &expiry(start, Duration::ZERO, 3 * SECOND));
        assert!(table.kept_until() >= Time::ZERO + 3 * SECOND);
    }
}
