//! Chance: every choice of a run, drawn from its seed.

use std::ops::Range;
use std::time::Duration;

use psrpc_engine::proto::Seed;

/// What all durations of a run are multiples of: coarse, so that many things happen at the very same moment.
pub(crate) const GRAIN: Duration = Duration::from_micros(250);

/// A splitmix64 generator.
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// A generator for one part of a run, so that what one part draws does not shift what the others do.
    pub(crate) fn fork(&mut self) -> Self {
        Self(self.bits())
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        ((u128::from(self.bits()) * u128::from(end)) >> 64) as u64
    }

    pub(crate) fn within(&mut self, range: Range<u64>) -> u64 {
        range.start + self.below(range.end - range.start)
    }

    /// True so many times out of a thousand.
    pub(crate) fn chance(&mut self, permille: u64) -> bool {
        self.below(1000) < permille
    }

    pub(crate) fn maybe<T>(&mut self, permille: u64, value: impl FnOnce(&mut Self) -> T) -> Option<T> {
        self.chance(permille).then(|| value(self))
    }

    pub(crate) fn index(&mut self, len: usize) -> usize {
        self.below(len as u64) as usize
    }

    pub(crate) fn pick<T: Clone>(&mut self, items: &[T]) -> T {
        items[self.index(items.len())].clone()
    }

    /// A duration of so many grains.
    pub(crate) fn grains(&mut self, range: Range<u64>) -> Duration {
        GRAIN * u32::try_from(self.within(range)).expect("durations are short")
    }

    /// A seed for an engine.
    pub(crate) fn seed(&mut self) -> Seed {
        let mut seed = [0; 32];
        for part in seed.chunks_exact_mut(8) {
            part.copy_from_slice(&self.bits().to_le_bytes());
        }
        seed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_draws_the_same_and_another_seed_does_not() {
        let draw = |seed| Rng::new(seed).seed();
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }

    #[test]
    fn numbers_stay_in_their_range_and_reach_all_of_it() {
        let mut rng = Rng::new(1);
        let mut seen = [false; 5];
        for _ in 0..200 {
            seen[rng.within(10..15) as usize - 10] = true;
        }
        assert_eq!(seen, [true; 5]);
    }
}
