//! The commands, one in each file, and the functions that they share.

mod exhaustive;
#[cfg(psrpc_planted)]
mod planted;
mod replay;
mod run;
mod speed;

use psrpc_simulation::judge::violation::Violation;
use psrpc_simulation::{Shrunk, shrink};

pub(crate) use exhaustive::Exhaustive;
#[cfg(psrpc_planted)]
pub(crate) use planted::Planted;
pub(crate) use replay::Replay;
pub(crate) use run::Run;
pub(crate) use speed::Speed;

/// The maximum number of runs for shrinking a failing seed.
const SHRINK_RUNS: usize = 2000;

fn hex(hash: u64) -> String {
    format!("{hash:016x}")
}

fn show_failure(seed: u64, violation: &Violation) {
    println!("FAILED: seed {seed} violates {violation}");
}

/// Shrinks a failing seed and prints the result.
fn show_shrunk(seed: u64) -> Option<Shrunk> {
    let shrunk = shrink(seed, SHRINK_RUNS)?;
    let Shrunk { violation, acts, faults, nodes, lines, runs } = &shrunk;
    println!("seed {seed}, shrunk in {runs} runs: {acts} acts, {faults} faults, {nodes} nodes");
    for line in lines {
        println!("{line}");
    }
    println!("VIOLATED: {violation}");
    Some(shrunk)
}

/// Silences the panic hook: a panic is one of the outcomes of a run, and the report contains it.
fn silence_panics() {
    std::panic::set_hook(Box::new(|_| {}));
}
