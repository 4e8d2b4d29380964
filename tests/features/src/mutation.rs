//! Mutations: what is changed to disable the code of a row, and the command whose test then fails.

use std::fs;
use std::path::Path;

/// A change of one file that disables the code of a row, and the command that runs the row's test.
pub struct Mutation {
    /// The id of the row in docs/features.md.
    pub row: String,
    /// The file that is changed.
    pub file: String,
    /// What is replaced: it is there exactly once.
    pub find: String,
    /// What replaces it.
    pub replace: String,
    /// The arguments of cargo.
    pub command: Vec<String>,
}

/// Reads the mutations of a text: blocks, with an empty line between them, of
///
/// ```text
/// ROW: FILE
/// - a line to replace, or several
/// + what replaces them, in no line or several
/// $ cargo test -p PACKAGE --test TARGET NAME
/// ```
pub fn parse(text: &str) -> Result<Vec<Mutation>, String> {
    let lines: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
    let blocks = lines.split(|line| line.is_empty()).filter(|block| !block.is_empty());
    blocks
        .map(|block| mutation(block).ok_or_else(|| format!("not a mutation:\n{}", block.join("\n"))))
        .collect()
}

fn mutation(block: &[&str]) -> Option<Mutation> {
    let (row, file) = block[0].split_once(": ")?;
    let of = |mark| {
        let lines = block[1..].iter().filter_map(|line| line.strip_prefix(mark));
        lines.map(|line| line.strip_prefix(' ').unwrap_or(line)).collect::<Vec<_>>().join("\n")
    };
    let command: Vec<_> = of('$').split(' ').map(str::to_owned).collect();
    let known = block[1..].iter().all(|line| line.starts_with(['-', '+', '$']));
    let whole = known && command[0] == "cargo" && !of('-').is_empty();
    whole.then(|| Mutation {
        row: row.to_owned(),
        file: file.to_owned(),
        find: of('-'),
        replace: of('+'),
        command: command[1..].to_vec(),
    })
}

impl Mutation {
    /// The test, or the conformance case, that the command runs.
    pub fn test(&self) -> &str {
        let case = self.command.iter().skip_while(|word| *word != "--").nth(2);
        let name = case.or(self.command.last()).expect("a command has words");
        name.rsplit("::").next().unwrap_or(name)
    }

    /// The command as it is typed.
    pub fn shown(&self) -> String {
        format!("cargo {}", self.command.join(" "))
    }

    /// The file with the change made.
    pub fn apply(&self, root: &Path) -> Result<String, String> {
        let Self { row, file, find, replace, .. } = self;
        let text = fs::read_to_string(root.join(file)).map_err(|error| format!("{row}: {file}: {error}"))?;
        match text.matches(find.as_str()).count() {
            1 => Ok(text.replacen(find.as_str(), replace, 1)),
            times => Err(format!("{row}: {file} has {times} times, not once:\n{find}")),
        }
    }
}
