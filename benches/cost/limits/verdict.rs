//! Compares counts with their limits.

use std::fmt;

use crate::limits::{Cost, Costs};

/// The result of a comparison.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    table: Vec<String>,
    failures: Vec<String>,
    hints: Vec<String>,
}

/// The tolerated deviation from a limit, in percent.
const SLACK: u64 = 3;

impl Verdict {
    pub fn new(limits: &Costs, counted: &Costs) -> Self {
        let mut verdict = Self::default();
        for (bench, cost) in counted {
            match limits.get(bench) {
                Some(limit) => verdict.compare(bench, *limit, *cost),
                None => verdict.failures.push(format!("{bench}: no limit; add one with --update")),
            }
        }
        for bench in limits.keys().filter(|bench| !counted.contains_key(*bench)) {
            verdict.failures.push(format!("{bench}: the limit has no bench; remove it with --update"));
        }
        if let (Some(few), Some(many)) =
            (counted.get("call_in_a_crowd.of_100"), counted.get("call_in_a_crowd.of_100_000"))
        {
            let times = many.instructions as f64 / few.instructions as f64;
            verdict
                .table
                .push(format!("a call among 100,000 others costs {times:.2} times as much as one among 100"));
        }
        verdict
    }

    fn compare(&mut self, bench: &str, limit: Cost, cost: Cost) {
        let Cost { instructions, allocations } = cost;
        let share = (instructions as f64 / limit.instructions as f64 - 1.0) * 100.0;
        let counted = allocations.map_or(String::new(), |count| format!(", {count} allocations"));
        self.table.push(format!("{bench:<28} {instructions:>8} instructions {share:>+7.2} %{counted}"));
        if instructions * 100 > limit.instructions * (100 + SLACK) {
            self.failures.push(format!(
                "{bench}: {instructions} instructions are {share:.1} % over the limit of {}: fix the cost, or raise the limit by {} \
                 with --update and say why in the commit",
                limit.instructions,
                instructions - limit.instructions,
            ));
        } else if instructions * 100 < limit.instructions * (100 - SLACK) {
            let limit = limit.instructions;
            self.hints.push(format!(
                "{bench}: {instructions} instructions; lower the limit of {limit} with --update"
            ));
        }
        match (allocations, limit.allocations) {
            (Some(count), Some(limit)) if count > limit => self.failures.push(format!(
                "{bench}: {count} allocations are over the limit of {limit}: fix the cost, or raise the limit with --update and say \
                 why in the commit"
            )),
            (Some(count), Some(limit)) if count < limit => {
                self.hints.push(format!("{bench}: {count} allocations; lower the limit of {limit} with --update"));
            }
            (Some(_), Some(_)) | (None, None) => {}
            (Some(_), None) | (None, Some(_)) => self.failures.push(format!(
                "{bench}: it has a count of allocations or a limit for them, but not both; fix with --update"
            )),
        }
    }

    pub fn passed(&self) -> bool {
        self.failures.is_empty()
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in self.table.iter().chain(&self.hints).chain(&self.failures) {
            writeln!(f, "{line}")?;
        }
        let Self { table: _, failures, hints } = self;
        write!(f, "{} over their limits, {} far below", failures.len(), hints.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn costs(instructions: u64, allocations: Option<u64>) -> Costs {
        [("call.warm".to_owned(), Cost { instructions, allocations })].into()
    }

    fn verdict(instructions: u64, allocations: u64) -> Verdict {
        Verdict::new(&costs(10_000, Some(1)), &costs(instructions, Some(allocations)))
    }

    #[test]
    fn three_percent_more_holds_and_one_instruction_beyond_does_not() {
        assert!(verdict(10_300, 1).passed());
        let over = verdict(10_301, 1);
        assert!(!over.passed());
        let text = over.to_string();
        for word in ["call.warm", "10301", "10000", "raise the limit by 301", "say why in the commit"] {
            assert!(text.contains(word), "{word} is missing in {text}");
        }
    }

    #[test]
    fn one_more_allocation_does_not_hold() {
        assert!(verdict(10_000, 1).passed());
        assert!(!verdict(10_000, 2).passed());
    }

    #[test]
    fn allocations_that_are_not_counted_any_more_do_not_hold() {
        assert!(!Verdict::new(&costs(1, Some(0)), &costs(1, None)).passed());
        assert!(Verdict::new(&costs(1, None), &costs(1, None)).passed());
    }

    #[test]
    fn what_is_far_below_asks_for_a_lower_limit_and_holds() {
        assert_eq!(verdict(9_700, 1).hints.len(), 0);
        for below in [verdict(9_699, 1), verdict(10_000, 0)] {
            assert_eq!((below.hints.len(), below.passed()), (1, true));
        }
    }

    #[test]
    fn each_bench_has_a_limit_and_each_limit_a_bench() {
        assert!(!Verdict::new(&Costs::new(), &costs(1, None)).passed());
        assert!(!Verdict::new(&costs(1, None), &Costs::new()).passed());
    }
}
