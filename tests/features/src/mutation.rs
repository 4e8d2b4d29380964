//! Mutations that disable the code of a row, and the commands whose tests must then fail.

use std::fs;
use std::path::Path;

use psrpc_features::change::{Change, marked};

/// A change that disables the code of a row, and the command that runs the row's test.
pub struct Mutation {
    /// The id of the row in docs/features.md.
    pub row: String,
    /// The change.
    pub change: Change,
    /// The arguments to cargo.
    pub command: Vec<String>,
}

/// Parses mutations: blocks separated by empty lines, in this form:
///
/// ```text
/// ROW: FILE
/// - lines to replace
/// + lines of the replacement, if any
/// $ cargo test -p PACKAGE --test TARGET NAME
/// ```
pub fn parse(text: &str) -> Result<Vec<Mutation>, String> {
    let lines: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
    let blocks = lines.split(|line| line.is_empty()).filter(|block| !block.is_empty());
    blocks
        .map(|block| mutation(block).ok_or_else(|| format!("malformed mutation:\n{}", block.join("\n"))))
        .collect()
}

fn mutation(block: &[&str]) -> Option<Mutation> {
    let (row, file) = block[0].split_once(": ")?;
    let command: Vec<_> = marked(&block[1..], '$').split(' ').map(str::to_owned).collect();
    let known = block[1..].iter().all(|line| line.starts_with(['-', '+', '$']));
    let change = Change::parse(file, &block[1..])?;
    let whole = known && command[0] == "cargo";
    whole.then(|| Mutation { row: row.to_owned(), change, command: command[1..].to_vec() })
}

impl Mutation {
    /// Returns the name of the test or conformance case that the command runs.
    pub fn test(&self) -> &str {
        let case = self.command.iter().skip_while(|word| *word != "--").nth(2);
        let name = case.or(self.command.last()).expect("a command has arguments");
        name.rsplit("::").next().unwrap_or(name)
    }

    /// Returns the command line.
    pub fn command_line(&self) -> String {
        format!("cargo {}", self.command.join(" "))
    }

    /// Returns the text of the file with the change applied.
    pub fn apply(&self, root: &Path) -> Result<String, String> {
        let Self { row, change, .. } = self;
        let text = fs::read_to_string(root.join(&change.file))
            .map_err(|error| format!("{row}: {}: {error}", change.file))?;
        change.apply(&text).map_err(|error| format!("{row}: {error}"))
    }
}
