//! `check_seeds`: runs a test of a service with one seed after the other.

use std::env;

use super::world::World;

/// Runs a test in one [`World`] per seed, one after the other, until it panics. Then prints the
/// seed and lets the panic continue. If the environment variable `PSRPC_SEED` is set, runs that
/// seed alone and prints its trace.
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
/// Panics if the test panics or does not complete, or if `PSRPC_SEED` is not a number from 0 to
/// 2^64 - 1.
pub fn check_seeds(seeds: impl IntoIterator<Item = u64>, test: impl AsyncFn(&World)) {
    if let Some(text) = env::var_os("PSRPC_SEED") {
        let seed = text.to_str().and_then(|text| text.parse().ok());
        let Some(seed) = seed else {
            panic!("cannot read PSRPC_SEED: {text:?} is not a number from 0 to 2^64 - 1")
        };
        let world = World::showing(seed, |line| eprintln!("{line}"));
        return world.run(test(&world));
    }
    for seed in seeds {
        let world = World::new(seed);
        let guard = PrintSeedOnPanic(seed);
        world.run(test(&world));
        drop(guard);
    }
}

/// Prints the seed of a failed test when dropped.
struct PrintSeedOnPanic(u64);

impl Drop for PrintSeedOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Self(seed) = self;
            eprintln!(
                "test failed with seed {seed}; set PSRPC_SEED={seed} to run only this seed and print its trace"
            );
        }
    }
}
