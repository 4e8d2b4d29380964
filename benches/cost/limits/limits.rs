//! The limits file: the compiler, and the limits of each bench.

use std::collections::BTreeMap;
use std::fmt;

/// The cost of a bench, or its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    pub instructions: u64,
    /// The number of allocations; `None` if they are not counted.
    pub allocations: Option<u64>,
}

/// Costs by the name of the bench.
pub type Costs = BTreeMap<String, Cost>;

/// The limits, and the compiler that they apply to.
#[derive(Debug, PartialEq, Eq)]
pub struct Limits {
    pub compiler: String,
    pub costs: Costs,
}

const HEAD: &str = "\
# The cost of each bench in benches/cost/benches/cost.rs with this compiler. A bench fails if it has over 3 % more
# instructions, or more allocations.
# Written by `cargo run --release -p psrpc-cost --bin limits -- --update`. A commit that raises a limit says why.
";

impl Limits {
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut compiler = None;
        let mut costs = Costs::new();
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            if let Some(named) = line.strip_prefix("compiler ") {
                compiler = Some(named.to_owned());
                continue;
            }
            let malformed = || {
                format!("limits.txt: expected a bench, its instructions and its allocations, got \"{line}\"")
            };
            let [bench, instructions, allocations] = line.split_whitespace().collect::<Vec<_>>()[..] else {
                return Err(malformed());
            };
            let instructions = instructions.parse().map_err(|_| malformed())?;
            let allocations = match allocations {
                "-" => None,
                number => Some(number.parse().map_err(|_| malformed())?),
            };
            costs.insert(bench.to_owned(), Cost { instructions, allocations });
        }
        let compiler = compiler.ok_or("limits.txt: no line with the compiler")?;
        Ok(Self { compiler, costs })
    }
}

impl fmt::Display for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{HEAD}compiler {}\n\n", self.compiler)?;
        writeln!(f, "{:<32} {:>12} {:>12}", "# bench", "instructions", "allocations")?;
        for (bench, Cost { instructions, allocations }) in &self.costs {
            let allocations = allocations.map_or("-".to_owned(), |allocations| allocations.to_string());
            writeln!(f, "{bench:<32} {instructions:>12} {allocations:>12}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_the_same() {
        let costs = [
            ("claimed_call.warm".to_owned(), Cost { instructions: 11_607, allocations: Some(0) }),
            ("crowd.of_100".to_owned(), Cost { instructions: 12_980, allocations: None }),
        ];
        let limits = Limits { compiler: "rustc 1.0 (a 2026-01-01) on unix".to_owned(), costs: costs.into() };
        assert_eq!(Limits::parse(&limits.to_string()), Ok(limits));
    }

    #[test]
    fn a_line_that_says_something_else_is_an_error() {
        for line in ["claimed_call.warm 1", "claimed_call.warm many 0", "claimed_call.warm 1 0 0"] {
            assert!(Limits::parse(&format!("compiler rustc\n{line}\n")).is_err(), "{line}");
        }
        assert!(Limits::parse("claimed_call.warm 1 0\n").is_err(), "no compiler");
    }
}
