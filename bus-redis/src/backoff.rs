//! Back-off: how long to wait before something is tried again.

use std::time::Duration;

/// Returns the delay after so many failures: `first`, then four times as long each time, up to
/// `at_most`, less a random part of up to a half. So clients that lost one server do not come back
/// to it all at once.
pub(crate) fn delay(first: Duration, failures: u32, at_most: Duration, noise: i64) -> Duration {
    let longest = first.saturating_mul(4_u32.saturating_pow(failures)).min(at_most);
    longest / 2 + (longest / 2).mul_f64(noise.rem_euclid(1009) as f64 / 1009.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_the_longest_and_differ() {
        let (first, second) = (Duration::from_millis(10), Duration::from_secs(1));
        for noise in [0, 500, 1008, -1, i64::MIN] {
            assert!(delay(first, 0, second, noise) <= first);
            for failures in [4, 40, u32::MAX] {
                let long = delay(first, failures, second, noise);
                assert!(long >= second / 2 && long <= second, "{long:?}");
            }
        }
        assert_ne!(delay(first, 9, second, 1), delay(first, 9, second, 2));
    }
}
