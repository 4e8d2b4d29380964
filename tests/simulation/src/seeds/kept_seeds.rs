//! Kept seeds: seeds that failed once, from `kept.txt`.

/// A seed that failed once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The seed.
    pub seed: u64,
    /// The failure that it showed.
    pub showed: &'static str,
}

/// Returns the seeds in `kept.txt`, in the order of the file.
///
/// # Panics
///
/// Panics if a line is neither empty, nor a comment, nor a seed followed by its failure.
pub fn kept() -> Vec<Kept> {
    parse(include_str!("../../kept.txt"))
}

fn parse(text: &'static str) -> Vec<Kept> {
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let kept = |line: &'static str| {
        let (seed, showed) = line.split_once("  ")?;
        Some(Kept { seed: seed.parse().ok()?, showed: showed.trim() }).filter(|kept| !kept.showed.is_empty())
    };
    lines
        .map(|line| {
            kept(line).unwrap_or_else(|| panic!("cannot read kept.txt: {line:?} is not a seed and a failure"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_is_a_seed_except_comments_and_empty_lines() {
        let kept = [Kept { seed: 7, showed: "a hat" }, Kept { seed: 12, showed: "two hats (I2)" }];
        assert_eq!(parse("# hats\n\n7  a hat\n12  two hats (I2)\n"), kept);
    }

    #[test]
    #[should_panic(expected = "cannot read kept.txt: \"7\" is not a seed and a failure")]
    fn a_seed_without_a_failure_panics() {
        parse("7\n");
    }
}
