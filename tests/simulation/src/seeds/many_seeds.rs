//! Many seeds: runs them on several threads, and returns the reports in the order of the seeds.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use super::one_seed::check_seed;
use crate::report::Report;

/// The number of seeds that a thread takes at a time.
const BLOCK: u64 = 16;

/// Checks `seeds` seeds from `first` on, and calls `each` with their reports in the order of the
/// seeds. Returns the total time for which the threads were busy.
#[expect(clippy::disallowed_methods, reason = "the elapsed time is only shown")]
pub fn run_seeds(first: u64, seeds: u64, threads: usize, mut each: impl FnMut(&Report)) -> Duration {
    let next = AtomicU64::new(0);
    let (done, blocks) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..threads {
            let (next, done) = (&next, done.clone());
            scope.spawn(move || {
                loop {
                    let from = next.fetch_add(BLOCK, Ordering::Relaxed);
                    if from >= seeds {
                        return;
                    }
                    let (began, to) = (Instant::now(), seeds.min(from + BLOCK));
                    let block = (from..to).map(|seed| check_seed(first.wrapping_add(seed)));
                    let block: Vec<_> = block.collect();
                    done.send((from, block, began.elapsed())).expect("the receiver outlives the threads");
                }
            });
        }
        drop(done);
        let (mut busy, mut turn, mut waiting) = (Duration::ZERO, 0, BTreeMap::new());
        for (from, block, took) in blocks {
            busy += took;
            waiting.insert(from, block);
            while let Some(block) = waiting.remove(&turn) {
                block.iter().for_each(&mut each);
                turn += BLOCK;
            }
        }
        busy
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_come_in_the_order_of_their_seeds_whatever_the_number_of_threads() {
        let reports = |threads| {
            let mut reports = Vec::new();
            run_seeds(5, 40, threads, |report| reports.push((report.seed, report.trace_hash)));
            reports
        };
        let one = reports(1);
        assert_eq!(one.iter().map(|(seed, _)| *seed).collect::<Vec<_>>(), (5..45).collect::<Vec<_>>());
        assert_eq!(reports(3), one);
    }
}
