//! Replacements of lines in a file.

use std::ops::Range;

/// A replacement in one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The path of the file, from the root of the tree.
    pub file: String,
    /// The text to replace. It must occur exactly once.
    pub find: String,
    /// The text that replaces it.
    pub replace: String,
}

impl Change {
    /// Parses a change from lines that begin with `-` (removed) or `+` (added). Other lines are
    /// skipped. Returns `None` if no line begins with `-`.
    pub fn parse(file: &str, lines: &[&str]) -> Option<Self> {
        let find = marked(lines, '-');
        (!find.is_empty()).then(|| Self { file: file.to_owned(), find, replace: marked(lines, '+') })
    }

    /// Returns the range of the text to replace, or an error unless it occurs exactly once.
    pub fn range(&self, text: &str) -> Result<Range<usize>, String> {
        let Self { file, find, .. } = self;
        match text.match_indices(find.as_str()).collect::<Vec<_>>()[..] {
            [(start, _)] => Ok(start..start + find.len()),
            ref found => {
                Err(format!("{file}: expected one occurrence of these lines, found {}:\n{find}", found.len()))
            }
        }
    }

    /// Returns the text of the file with the change applied.
    pub fn apply(&self, text: &str) -> Result<String, String> {
        let mut text = text.to_owned();
        text.replace_range(self.range(&text)?, &self.replace);
        Ok(text)
    }
}

/// Joins the lines that begin with a mark, with the mark and the following space removed.
pub fn marked(lines: &[&str], mark: char) -> String {
    let lines = lines.iter().filter_map(|line| line.strip_prefix(mark));
    lines.map(|line| line.strip_prefix(' ').unwrap_or(line)).collect::<Vec<_>>().join("\n")
}
