//! Randomness: every choice of a run is drawn from its seed.

use std::ops::Range;
use std::time::Duration;

use psrpc_engine::Time;
use psrpc_engine::proto::Seed;

/// The unit of all random durations of a run. It is coarse, so that many things happen at the same
/// moment.
pub(crate) const GRAIN: Duration = Duration::from_micros(250);

/// A splitmix64 generator that can be reseeded for each moment of a run.
pub(crate) struct Rng {
    seed: u64,
    moment: Time,
    state: u64,
}

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self { seed, moment: Time::ZERO, state: seed }
    }

    /// Reseeds the generator for a moment, unless it is already seeded for that one.
    ///
    /// Draws at one moment do not shift the draws at another, so shrinking can leave out a part of
    /// a run without changing the rest.
    pub(crate) fn reseed_at(&mut self, moment: Time) {
        if self.moment != moment {
            self.moment = moment;
            self.state = mix(self.seed ^ mix(moment.as_nanos()));
        }
    }

    pub(crate) fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.state)
    }

    /// Returns a generator for one part of a run, so that its draws do not shift those of other
    /// parts.
    pub(crate) fn fork(&mut self) -> Self {
        Self::new(self.bits())
    }

    /// Returns a generator for part `number`, which starts at this moment. It does not depend on
    /// earlier draws.
    pub(crate) fn derive(&self, number: u64) -> Self {
        Self::new(mix(mix(self.seed ^ mix(self.moment.as_nanos())) ^ number))
    }

    /// Draws a number below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        ((u128::from(self.bits()) * u128::from(end)) >> 64) as u64
    }

    pub(crate) fn within(&mut self, range: Range<u64>) -> u64 {
        range.start + self.below(range.end - range.start)
    }

    /// Returns `true` with a probability of `permille` in a thousand.
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

    /// Draws a duration, as a number of [`GRAIN`]s.
    pub(crate) fn grains(&mut self, range: Range<u64>) -> Duration {
        GRAIN * u32::try_from(self.within(range)).expect("durations are short")
    }

    /// Draws a seed for an engine.
    pub(crate) fn seed(&mut self) -> Seed {
        let mut seed = [0; 32];
        for part in seed.chunks_exact_mut(8) {
            part.copy_from_slice(&self.bits().to_le_bytes());
        }
        seed
    }
}

fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_at_one_moment_do_not_shift_draws_at_another() {
        let draw = |draws: usize| {
            let mut rng = Rng::new(1);
            let mut at = |nanos, draws| {
                rng.reseed_at(Time::from_nanos(nanos));
                (0..draws).map(|_| rng.bits()).last()
            };
            at(5, draws);
            (at(7, 1), at(7, 1))
        };
        let (first, second) = draw(1);
        assert_eq!(draw(9), (first, second));
        assert_ne!(first, second, "a second draw at the same moment differs");
    }

    #[test]
    fn the_same_seed_draws_the_same_and_another_seed_does_not() {
        let draw = |seed| Rng::new(seed).seed();
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }

    #[test]
    fn a_derived_generator_depends_on_its_number_and_the_moment_alone() {
        let draw = |nanos, number, before| {
            let mut rng = Rng::new(1);
            rng.reseed_at(Time::from_nanos(nanos));
            for _ in 0..before {
                rng.bits();
            }
            rng.derive(number).bits()
        };
        assert_eq!(draw(5, 2, 0), draw(5, 2, 3));
        assert_ne!(draw(5, 2, 0), draw(5, 3, 0));
        assert_ne!(draw(5, 2, 0), draw(6, 2, 0));
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
