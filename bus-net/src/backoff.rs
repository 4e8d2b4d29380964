//! Exponential back-off with jitter.

use std::time::Duration;

use psrpc::WallTime;

/// Returns the delay after a number of failures: `first`, multiplied by four for each failure up to
/// `longest`, minus a random part of up to one half.
///
/// The random part is taken from the time `now`. It spreads the attempts of clients that lost the
/// same server.
pub fn delay(first: Duration, failures: u32, longest: Duration, now: WallTime) -> Duration {
    let full = first.saturating_mul(4_u32.saturating_pow(failures)).min(longest);
    full / 2 + (full / 2).mul_f64(now.as_unix_nanos().rem_euclid(1009) as f64 / 1009.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_the_longest_and_differ() {
        let (first, longest) = (Duration::from_millis(10), Duration::from_secs(1));
        let delay = |failures, nanos| delay(first, failures, longest, WallTime::from_unix_nanos(nanos));
        for nanos in [0, 500, 1008, -1, i64::MIN] {
            for (failures, full) in [(0, 10), (1, 40), (2, 160), (3, 640), (4, 1000), (u32::MAX, 1000)] {
                let (full, delay) = (Duration::from_millis(full), delay(failures, nanos));
                assert!(full / 2 <= delay && delay <= full, "{delay:?} after {failures} failures");
            }
        }
        assert_ne!(delay(9, 1), delay(9, 2));
    }
}
