//! The search: visits all states of a scenario, layer by layer by their distance from the start.

use std::collections::BTreeMap;

use super::histories::{Histories, Sharing};
use super::outcome::{Failure, Outcome};
use super::scenario::Scenario;
use super::step_text::show_step;
use super::world_state::WorldState;
use crate::judge::violation::{Checked, Invariant, Violation};

/// The limit for the steps of a schedule. An engine that never comes to rest exceeds it.
const MAX_STEPS: usize = 300;

/// Runs every schedule of a scenario.
pub fn exhaustive(scenario: &Scenario) -> Outcome {
    Search::new(scenario, Sharing::Ignored).finish()
}

struct Search<'a> {
    scenario: &'a Scenario,
    histories: Histories,
    /// The states at the current distance from the start, each with the number of ways that lead
    /// there.
    layer: BTreeMap<WorldState, (u64, Origin)>,
    /// For each state of each earlier layer, a step that leads there.
    trail: Vec<Vec<Origin>>,
    outcome: Outcome,
}

/// The step that leads to a state.
#[derive(Clone, Copy)]
struct Origin {
    /// The index of the previous state in its layer.
    before: u32,
    /// The index of the step among those of the previous state.
    step: u32,
}

impl<'a> Search<'a> {
    fn new(scenario: &'a Scenario, sharing: Sharing) -> Self {
        let histories = Histories::new(*scenario, sharing);
        let none = Origin { before: 0, step: 0 };
        let layer = BTreeMap::from([(WorldState::first(scenario, &histories), (1, none))]);
        Self { scenario, histories, layer, trail: Vec::new(), outcome: Outcome::new(scenario) }
    }

    fn finish(mut self) -> Outcome {
        while !self.layer.is_empty() {
            self.advance();
        }
        self.outcome.runs = self.histories.len();
        self.outcome
    }

    /// Takes every step from every state of the layer.
    fn advance(&mut self) {
        self.trail.push(Vec::with_capacity(self.layer.len()));
        for (index, (state, (ways, origin))) in std::mem::take(&mut self.layer).into_iter().enumerate() {
            self.trail.last_mut().expect("a layer was pushed above").push(origin);
            let steps = state.steps(self.scenario, &mut self.histories);
            self.outcome.states += 1;
            self.outcome.steps += steps.len() as u64;
            if steps.is_empty() {
                self.end(state.faults, ways, state.end(&self.histories), index, None);
            }
            for (step, taken) in steps.into_iter().enumerate() {
                let origin = Origin { before: index as u32, step: step as u32 };
                match taken.state {
                    Ok(state) if self.trail.len() <= MAX_STEPS => {
                        let (known, _) = self.layer.entry(state).or_insert((0, origin));
                        *known = known.checked_add(ways).expect("a scenario is small");
                    }
                    Ok(_) => {
                        let what = format!("no end after {MAX_STEPS} steps");
                        let endless = Err(Violation { invariant: Invariant::I9, what });
                        self.end(taken.faults, ways, endless, index, Some(origin.step));
                    }
                    Err(violation) => {
                        self.end(taken.faults, ways, Err(violation), index, Some(origin.step));
                    }
                }
            }
        }
    }

    /// Counts the `ways` schedules that end in a state of the layer, or with a step from there.
    fn end(&mut self, faults: u8, ways: u64, result: Checked, index: usize, step: Option<u32>) {
        let outcome = &mut self.outcome;
        let schedules = &mut outcome.schedules[usize::from(faults)];
        *schedules = schedules.checked_add(ways).expect("a scenario is small");
        outcome.longest = self.trail.len() - 1 + usize::from(step.is_some());
        if let Err(violation) = result {
            outcome.failed += ways;
            if outcome.failure.is_none() {
                let steps = self.retrace(index, step);
                self.outcome.failure = Some(Failure { violation, steps });
            }
        }
    }

    /// Describes the steps that lead to a state of the layer, and one step from there.
    fn retrace(&mut self, mut index: usize, last: Option<u32>) -> Vec<String> {
        let mut path: Vec<_> = last.into_iter().collect();
        for layer in self.trail.iter().skip(1).rev() {
            let Origin { before, step } = layer[index];
            path.push(step);
            index = before as usize;
        }
        let mut state = Some(WorldState::first(self.scenario, &self.histories));
        let step = |step: u32| {
            let mut steps = state.take()?.steps(self.scenario, &mut self.histories);
            let taken = steps.swap_remove(step as usize);
            let shown = show_step(&taken, &self.histories);
            state = taken.state.ok();
            Some(shown)
        };
        path.into_iter().rev().map_while(step).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exhaustive::scenario::Kind;

    /// Visits each schedule separately, and counts them by their faults.
    fn walk(scenario: &Scenario, histories: &mut Histories, state: &WorldState, schedules: &mut [u64]) {
        let steps = state.steps(scenario, histories);
        if steps.is_empty() {
            assert_eq!(state.end(histories), Ok(()));
            schedules[usize::from(state.faults)] += 1;
        }
        for taken in steps {
            walk(scenario, histories, &taken.state.expect("the scenario violates no invariant"), schedules);
        }
    }

    #[test]
    fn visiting_each_schedule_separately_gives_the_same_number() {
        for scenario in [
            Scenario::new(Kind::Queue, 1),
            Scenario::new(Kind::SkipClaim, 1),
            Scenario::new(Kind::Affinity, 0),
            Scenario::new(Kind::SingleServer, 2).canceled(),
            Scenario::new(Kind::Multi, 1),
            Scenario::new(Kind::Update, 2),
        ] {
            let mut histories = Histories::new(scenario, Sharing::Nothing);
            let first = WorldState::first(&scenario, &histories);
            let mut schedules = vec![0; usize::from(scenario.faults) + 1];
            walk(&scenario, &mut histories, &first, &mut schedules);
            assert_eq!(exhaustive(&scenario).schedules, schedules, "{}", scenario.name());
        }
    }

    #[test]
    fn merging_histories_with_ignored_inputs_makes_no_difference() {
        for scenario in [
            Scenario::new(Kind::Queue, 2),
            Scenario::new(Kind::SkipClaim, 1).canceled(),
            Scenario::new(Kind::Affinity, 1),
            Scenario::new(Kind::Multi, 2),
            Scenario::new(Kind::Upload, 0),
        ] {
            let apart = Search::new(&scenario, Sharing::Nothing).finish();
            let together = exhaustive(&scenario);
            assert_eq!((together.failed, apart.failed), (0, 0));
            assert_eq!(together.schedules, apart.schedules, "{}", scenario.name());
            assert!(together.states < apart.states, "{}", scenario.name());
        }
    }
}
