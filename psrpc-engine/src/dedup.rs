//! Deduplication: each request of each client once, until it counts as expired.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::map::IdentitySet;
use crate::time::Expiry;
use crate::timers::TimerId;
use crate::{Now, Time, WallTime};

/// Requests are forgotten together with all that expire within the same 2^30 nanoseconds, about a second.
const BUCKET_SHIFT: u32 = 30;

/// Remembers requests by a keyed 128-bit hash of client and request id, in buckets by expiry.
///
/// A bucket is forgotten whole when both clocks say that its requests have expired: the monotonic one, so that a wall
/// clock that jumped ahead makes nothing be forgotten early, and the wall clock, by which a late duplicate is judged.
pub(crate) struct Dedup {
    seen: IdentitySet,
    buckets: BTreeMap<BucketKey, Bucket>,
    limit: usize,
}

/// A bucket, by its place in wall time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct BucketKey(i64);

impl BucketKey {
    fn of(expiry: &Expiry) -> Self {
        Self(expiry.wall().as_unix_nanos() >> BUCKET_SHIFT)
    }

    /// The first moment at which every request in the bucket is expired.
    fn end(self) -> WallTime {
        WallTime::from_unix_nanos((self.0 << BUCKET_SHIFT) | ((1 << BUCKET_SHIFT) - 1))
    }
}

struct Bucket {
    identities: Vec<u128>,
    forget_at: Time,
    timer: Option<TimerId>,
}

/// What became of a request that was to be remembered.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// It is new. If its bucket is to be kept longer than so far, until when, and the timer to move.
    New(Option<(Time, Option<TimerId>)>),
    Duplicate,
    Full,
}

impl Dedup {
    pub(crate) const fn new(limit: usize) -> Self {
        Self { seen: IdentitySet::new(), buckets: BTreeMap::new(), limit }
    }

    pub(crate) fn knows(&self, identity: u128) -> bool {
        self.seen.contains(identity)
    }

    pub(crate) fn admit(&mut self, now: Now, identity: u128, expiry: &Expiry) -> (BucketKey, Admission) {
        let key = BucketKey::of(expiry);
        if self.knows(identity) {
            return (key, Admission::Duplicate);
        }
        if self.seen.len() >= self.limit {
            return (key, Admission::Full);
        }
        let bucket = self.buckets.entry(key).or_insert_with(|| Bucket {
            identities: Vec::new(),
            forget_at: Time::ZERO,
            timer: None,
        });
        bucket.identities.push(identity);
        self.seen.insert(identity);
        // Our wall clock may be ahead and be set right later, so the client's own view of the lifetime counts too.
        let needed = (now.time + expiry.lifetime()).max(expiry.time());
        if needed <= bucket.forget_at {
            return (key, Admission::New(None));
        }
        bucket.forget_at = needed.max(now.time + key.end().since(now.wall));
        (key, Admission::New(Some((bucket.forget_at, bucket.timer))))
    }

    /// Sets the timer of a bucket.
    pub(crate) fn armed(&mut self, key: BucketKey, timer: TimerId) {
        if let Some(bucket) = self.buckets.get_mut(&key) {
            bucket.timer = Some(timer);
        }
    }

    /// The timer of a bucket has fired: forgets it, or says until when it must be kept on.
    pub(crate) fn forget(&mut self, now: Now, key: BucketKey) -> Option<Time> {
        let bucket = self.buckets.get_mut(&key)?;
        bucket.timer = None;
        let expired = now.time + key.end().since(now.wall);
        // At the end of time there is no later.
        if expired > now.time {
            bucket.forget_at = expired;
            return Some(expired);
        }
        for identity in self.buckets.remove(&key)?.identities {
            self.seen.remove(identity);
        }
        self.seen.shrink();
        None
    }

    /// Forgets everything, and gives back the timers that are still armed.
    pub(crate) fn clear(&mut self) -> impl Iterator<Item = TimerId> + use<> {
        self.seen = IdentitySet::new();
        core::mem::take(&mut self.buckets).into_values().filter_map(|bucket| bucket.timer)
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

    fn new(admission: &Admission) -> bool {
        matches!(admission, Admission::New(_))
    }

    #[test]
    fn a_request_is_new_once_until_it_is_forgotten() {
        let mut dedup = Dedup::new(10);
        let start = now(Duration::ZERO, Duration::ZERO);
        let expires = expiry(start, Duration::ZERO, 3 * SECOND);
        let (key, admission) = dedup.admit(start, 1, &expires);
        let Admission::New(Some((forget_at, None))) = admission else { panic!("{admission:?}") };
        assert!(forget_at >= Time::ZERO + 3 * SECOND);
        assert_eq!(dedup.admit(start, 1, &expires).1, Admission::Duplicate);
        assert!(new(&dedup.admit(start, 2, &expires).1));
        let forget_at = forget_at.since(Time::ZERO);
        assert_eq!(dedup.forget(now(forget_at, forget_at), key), None);
        assert_eq!(dedup.remembered(), 0);
    }

    #[test]
    fn a_full_table_refuses_what_is_new_and_evicts_nothing() {
        let mut dedup = Dedup::new(1);
        let start = now(Duration::ZERO, Duration::ZERO);
        let expires = expiry(start, Duration::ZERO, SECOND);
        assert!(new(&dedup.admit(start, 1, &expires).1));
        assert_eq!(dedup.admit(start, 2, &expires).1, Admission::Full);
        assert_eq!(dedup.admit(start, 1, &expires).1, Admission::Duplicate);
    }

    #[test]
    fn a_wall_clock_set_back_keeps_a_bucket_until_its_requests_count_as_expired_again() {
        let mut dedup = Dedup::new(10);
        let start = now(Duration::ZERO, 100 * SECOND);
        let (key, _) = dedup.admit(start, 1, &expiry(start, 100 * SECOND, SECOND));
        let later = now(5 * SECOND, 95 * SECOND);
        let kept = dedup.forget(later, key).expect("it must be kept on");
        assert!(kept >= Time::ZERO + 11 * SECOND);
        assert_eq!(dedup.remembered(), 1);
    }

    #[test]
    fn a_wall_clock_that_is_ahead_does_not_shorten_what_the_client_says() {
        let mut dedup = Dedup::new(10);
        // By our clock only one of the three seconds is left.
        let start = now(Duration::ZERO, 2 * SECOND);
        let (_, admission) = dedup.admit(start, 1, &expiry(start, Duration::ZERO, 3 * SECOND));
        let Admission::New(Some((forget_at, _))) = admission else { panic!("{admission:?}") };
        assert!(forget_at >= Time::ZERO + 3 * SECOND);
    }
}
