//! Splits a document into the pieces that name something.

use std::fs;

/// A Markdown document.
pub(crate) struct Document {
    pub(crate) path: String,
    pub(crate) lines: Vec<Line>,
}

/// A line of a document.
pub(crate) struct Line {
    pub(crate) number: usize,
    pub(crate) text: String,
    /// The text of its code spans, or the whole line in a code block.
    pub(crate) code: Vec<String>,
    /// The targets of its links.
    pub(crate) links: Vec<String>,
}

impl Document {
    pub(crate) fn read(path: String) -> Self {
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        Self { path, lines: parse(&text) }
    }
}

pub(crate) fn parse(text: &str) -> Vec<Line> {
    let mut in_block = false;
    let mut lines = Vec::new();
    for (index, text) in text.lines().enumerate() {
        let is_fence = text.trim_start().starts_with("```");
        in_block ^= is_fence;
        let is_code = (in_block && !is_fence) || text.starts_with("    ");
        let code = match is_code {
            true => vec![text.trim().to_owned()],
            false if is_fence => Vec::new(),
            false => spans(text),
        };
        let links = if is_code { Vec::new() } else { links(text) };
        lines.push(Line { number: index + 1, text: text.to_owned(), code, links });
    }
    lines
}

fn spans(text: &str) -> Vec<String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

fn links(text: &str) -> Vec<String> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
    targets.map(|(target, _)| target.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_blocks_and_links_are_told_apart() {
        let lines = parse("see `a.rs` and [that](b.md#c)\n```sh\n./test docs\n```\n    cargo run\n");
        let code: Vec<_> = lines.iter().map(|line| line.code.join(" ")).collect();
        assert_eq!(code, ["a.rs", "", "./test docs", "", "cargo run"]);
        assert_eq!(lines[0].links, ["b.md#c"]);
    }
}
