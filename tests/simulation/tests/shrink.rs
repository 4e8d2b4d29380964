//! Shrinking, in a separate process: a planted defect affects every engine of its process.

#![cfg(psrpc_planted)]

use psrpc_engine::planted::{Defect, plant};
use psrpc_simulation::judge::violation::Invariant;
use psrpc_simulation::{Shrunk, shrink, simulate};

#[test]
fn a_failing_seed_shrinks_deterministically_to_few_parts_that_fail_in_the_same_way() {
    plant(Some(Defect::DuplicateRuns));
    let seed = (0..100)
        .find(|seed| simulate(*seed, None).violation.is_some())
        .expect("a hundred seeds catch it in engines");
    let shrunk = shrink(seed, 500).expect("the seed fails");
    assert_eq!(shrink(seed, 500), Some(shrunk.clone()));
    let unshrunk = shrink(seed, 0).expect("the seed fails");
    plant(None);
    let Shrunk { violation, acts, faults, lines, runs, .. } = shrunk;
    assert_eq!(violation.invariant, Invariant::I2);
    assert!(runs <= 500, "{runs}");
    assert!(acts.left <= 4 && acts.of >= 20, "{acts} acts");
    assert!(faults.left <= 3 && faults.of >= 20, "{faults} faults");
    assert!(4 * lines.len() < unshrunk.lines.len(), "{} of {} lines", lines.len(), unshrunk.lines.len());
    assert!(lines.iter().any(|line| line.to_string().contains("duplicate")), "{lines:?}");
    assert_eq!(shrink(seed, 500), None, "without the defect it passes");
}
