//! Shrinking: removes parts of a failing seed, as long as it fails in the same way.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::mpsc;

use super::simulation::{VariationOutcome, simulate_variation};
use super::variation::{Part, Variation};
use crate::judge::violation::{Invariant, Violation};
use crate::trace::{Line, LineKind};

/// The smallest failing variation of a seed that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shrunk {
    /// The violation of the smallest variation. The violated invariant is that of the whole seed.
    pub violation: Violation,
    /// The acts that remain, of those planned until the failure.
    pub acts: Size,
    /// The random faults that remain, of those drawn until the failure.
    pub faults: Size,
    /// The clients and servers that remain.
    pub nodes: Size,
    /// The trace. Details about subscriptions are left out, unless the violation is about them.
    pub lines: Vec<Line>,
    /// The number of runs that shrinking took.
    pub runs: usize,
}

/// The number of parts after and before shrinking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// The number of remaining parts.
    pub left: usize,
    /// The number of parts before shrinking.
    pub of: usize,
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.left, self.of)
    }
}

/// Shrinks a failing seed, in at most `runs` runs. Returns `None` if it passes.
///
/// The result is deterministic.
pub fn shrink(seed: u64, runs: usize) -> Option<Shrunk> {
    let mut shrinker = Shrinker::new(seed, runs)?;
    shrinker.cut();
    let before = sizes(&shrinker.smallest);
    loop {
        let parts = shrinker.leave_out_parts(|part| !part.is_node());
        let faults = shrinker.leave_out_faults();
        let nodes = shrinker.leave_out_parts(Part::is_node);
        // Removing a part of one kind may allow the removal of a part of another.
        if !(parts || faults || nodes) {
            break;
        }
    }
    let after = sizes(&shrinker.smallest);
    let [acts, faults, nodes] = std::array::from_fn(|index| Size { left: after[index], of: before[index] });
    let runs = runs - shrinker.runs_left;
    Some(Shrunk { violation: shrinker.violation(), acts, faults, nodes, lines: shrinker.lines(), runs })
}

/// Returns the number of acts, faults and nodes.
fn sizes(outcome: &VariationOutcome) -> [usize; 3] {
    let nodes = outcome.parts.keys().filter(|part| part.is_node()).count();
    [outcome.parts.len() - nodes, outcome.faults.len(), nodes]
}

struct Shrinker {
    seed: u64,
    invariant: Invariant,
    /// The smallest failing variation so far, and its outcome.
    variation: Variation,
    smallest: VariationOutcome,
    runs_left: usize,
}

impl Shrinker {
    fn new(seed: u64, runs_left: usize) -> Option<Self> {
        let variation = Variation::default();
        let smallest = simulate_variation(seed, &variation, None);
        let invariant = smallest.report.violation.as_ref()?.invariant;
        Some(Self { seed, invariant, variation, smallest, runs_left })
    }

    /// Runs a variation, and keeps it if it fails in the same way. Returns `true` if it does.
    fn try_out(&mut self, variation: Variation) -> bool {
        if self.runs_left == 0 {
            return false;
        }
        self.runs_left -= 1;
        let outcome = simulate_variation(self.seed, &variation, None);
        let violation = outcome.report.violation.as_ref();
        let fails = violation.is_some_and(|violation| violation.invariant == self.invariant);
        if fails {
            (self.variation, self.smallest) = (variation, outcome);
        }
        fails
    }

    /// Removes all parts that are planned for after the failure.
    fn cut(&mut self) {
        let VariationOutcome { parts, ended, .. } = &self.smallest;
        let earlier = parts.iter().filter(|(_, at)| *at <= ended).map(|(part, _)| *part).collect();
        self.try_out(Variation { parts: Some(earlier), ..self.variation.clone() });
    }

    fn leave_out_parts(&mut self, of_kind: impl Fn(&Part) -> bool) -> bool {
        let (items, others): (Vec<_>, Vec<_>) = self.smallest.parts.keys().partition(|part| of_kind(part));
        self.leave_out(items, |known, kept| {
            let parts = kept.iter().chain(&others).copied().collect();
            Variation { parts: Some(parts), ..known.clone() }
        })
    }

    fn leave_out_faults(&mut self) -> bool {
        let faults = self.smallest.faults.iter().copied().collect();
        self.leave_out(faults, |known, kept| {
            let faults: BTreeSet<_> = kept.iter().copied().collect();
            Variation { faults: Some(faults), ..known.clone() }
        })
    }

    /// Removes all items, or halves of them, or ever smaller parts. Returns `true` if it removed
    /// any.
    fn leave_out<T: Copy>(
        &mut self,
        mut items: Vec<T>,
        variation: impl Fn(&Variation, &[T]) -> Variation,
    ) -> bool {
        let (before, mut size) = (items.len(), items.len());
        while size > 0 {
            let mut from = 0;
            while from < items.len() {
                let to = items.len().min(from + size);
                let fewer = [&items[..from], &items[to..]].concat();
                if self.try_out(variation(&self.variation, &fewer)) {
                    items = fewer;
                } else {
                    from = to;
                }
            }
            size = if size == 1 { 0 } else { size.div_ceil(2) };
        }
        items.len() < before
    }

    fn violation(&self) -> Violation {
        self.smallest.report.violation.clone().expect("only failing variations are kept")
    }

    fn lines(&self) -> Vec<Line> {
        let (keeps, lines) = mpsc::channel();
        let details = self.invariant == Invariant::I13;
        let keep = move |line: &Line| {
            if details || line.kind != LineKind::Detail {
                keeps.send(line.clone()).expect("the lines are collected below");
            }
        };
        simulate_variation(self.seed, &self.variation, Some(Box::new(keep)));
        lines.iter().collect()
    }
}
