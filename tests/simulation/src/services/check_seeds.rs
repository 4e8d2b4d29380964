//! `check_seeds`: runs a test of a service in one world after the other.

use std::env;

use super::world::World;

/// Runs a test in the worlds of these seeds, one after the other, until it panics: then it says
/// with which seed, and the panic goes on. With the variable `PSRPC_SEED` in the environment it
/// runs that seed alone, and shows all that happens.
///
/// ```
/// use std::time::Duration;
///
/// psrpc_simulation::check_seeds(0..20, async |world| {
///     world.set_random_rates();
///     world.sleep(Duration::from_secs(1)).await;
///     assert_eq!(world.elapsed(), Duration::from_secs(1));
/// });
/// ```
///
/// # Panics
///
/// When the test does, or does not come to its end, or `PSRPC_SEED` is no seed.
pub fn check_seeds(seeds: impl IntoIterator<Item = u64>, test: impl AsyncFn(&World)) {
    if let Some(text) = env::var_os("PSRPC_SEED") {
        let seed = text.to_str().and_then(|text| text.parse().ok());
        let Some(seed) = seed else {
            panic!("PSRPC_SEED is no seed, which is a number from 0 to 2^64 - 1: {text:?}")
        };
        let world = World::showing(seed, |line| eprintln!("{line}"));
        return world.run(test(&world));
    }
    for seed in seeds {
        let world = World::new(seed);
        let failing = Failing(seed);
        world.run(test(&world));
        drop(failing);
    }
}

/// Says with which seed a test failed.
struct Failing(u64);

impl Drop for Failing {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Self(seed) = self;
            eprintln!(
                "it failed with seed {seed}; with PSRPC_SEED={seed} in the environment it runs that one again and shows all"
            );
        }
    }
}
