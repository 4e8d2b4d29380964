//! Exponential back-off with jitter.

use std::time::Duration;

/// Returns the delay after a number of failures: `first`, multiplied by four for each failure up to
/// `at_most`, minus a random part of up to one half. The random part spreads the attempts of
/// clients that lost the same server.
pub(crate) fn delay(first: Duration, failures: u32, at_most: Duration, jitter: i64) -> Duration {
    let longest = first.saturating_mul(4_u32.saturating_pow(failures)).min(at_most);
    longest / 2 + (longest / 2).mul_f64(jitter.rem_euclid(1009) as f64 / 1009.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_the_longest_and_differ() {
        let (first, second) = (Duration::from_millis(10), Duration::from_secs(1));
        for jitter in [0, 500, 1008, -1, i64::MIN] {
            assert!(delay(first, 0, second, jitter) <= first);
            for failures in [4, 40, u32::MAX] {
                let long = delay(first, failures, second, jitter);
                assert!(long >= second / 2 && long <= second, "{long:?}");
            }
        }
        assert_ne!(delay(first, 9, second, 1), delay(first, 9, second, 2));
    }
}
