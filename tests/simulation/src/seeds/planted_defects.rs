//! Planted defects: searches for the first seed that catches each defect of the engine and the
//! driver, and the invariant that it violates.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use psrpc_engine::planted::{Defect, plant};

use super::one_seed::check_seed;
use crate::judge::violation::Invariant;

/// How a defect was caught.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Catch {
    /// The first seed that catches it.
    pub seed: u64,
    /// The violated invariant.
    pub invariant: Invariant,
}

/// Plants a defect and runs up to `seeds` seeds, starting at 0, until one violates an invariant.
///
/// The defect is active in the whole process, so nothing else should be simulated meanwhile.
pub fn catch(defect: Defect, seeds: u64) -> Option<Catch> {
    plant(Some(defect));
    let catch = Search { seeds, next: AtomicU64::new(0), caught: Mutex::new(None) }.run();
    plant(None);
    catch
}

/// A search for the first seed that catches a defect, on all cores.
struct Search {
    seeds: u64,
    next: AtomicU64,
    caught: Mutex<Option<Catch>>,
}

impl Search {
    fn run(self) -> Option<Catch> {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        thread::scope(|scope| {
            for _ in 0..cores {
                scope.spawn(|| self.run_seeds());
            }
        });
        self.caught.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes seeds in order, so that no seed before the first failing one is left out.
    fn run_seeds(&self) {
        loop {
            let seed = self.next.fetch_add(1, Ordering::Relaxed);
            if seed >= self.seeds {
                return;
            }
            let Some(violation) = check_seed(seed).violation else { continue };
            // The other threads finish their current seed and stop.
            self.next.fetch_max(self.seeds, Ordering::Relaxed);
            let mut caught = self.caught.lock().unwrap_or_else(PoisonError::into_inner);
            if caught.is_none_or(|catch| seed < catch.seed) {
                *caught = Some(Catch { seed, invariant: violation.invariant });
            }
        }
    }
}
