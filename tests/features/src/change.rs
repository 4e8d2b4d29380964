//! Changes: lines of a file, and the lines that replace them.

use std::ops::Range;

/// A change of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The path of the file, from the root of the tree.
    pub file: String,
    /// The text that is replaced. The file has it exactly once.
    pub find: String,
    /// The text that replaces it.
    pub replace: String,
}

impl Change {
    /// Reads a change from lines that begin with `-` (replaced) or `+` (the replacement). Other
    /// lines are skipped. Returns `None` if no line is replaced.
    pub fn parse(file: &str, lines: &[&str]) -> Option<Self> {
        let find = marked(lines, '-');
        (!find.is_empty()).then(|| Self { file: file.to_owned(), find, replace: marked(lines, '+') })
    }

    /// Returns the range of the text that is replaced. Fails unless the text of the file has it
    /// exactly once.
    pub fn range(&self, text: &str) -> Result<Range<usize>, String> {
        let Self { file, find, .. } = self;
        match text.match_indices(find.as_str()).collect::<Vec<_>>()[..] {
            [(start, _)] => Ok(start..start + find.len()),
            ref found => Err(format!("{file} has {} times, not once:\n{find}", found.len())),
        }
    }

    /// Returns the text of the file with this change made.
    pub fn apply(&self, text: &str) -> Result<String, String> {
        let mut text = text.to_owned();
        text.replace_range(self.range(&text)?, &self.replace);
        Ok(text)
    }
}

/// Joins the lines that begin with a mark, without the mark and the space after it.
pub fn marked(lines: &[&str], mark: char) -> String {
    let lines = lines.iter().filter_map(|line| line.strip_prefix(mark));
    lines.map(|line| line.strip_prefix(' ').unwrap_or(line)).collect::<Vec<_>>().join("\n")
}
