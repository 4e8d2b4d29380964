//! Checks that the files, functions and commands that a document names exist in the tree.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::document::{Document, Line};

/// What exists in the tree.
pub(crate) struct Facts {
    packages: BTreeSet<String>,
    examples: BTreeSet<String>,
    /// The parts of `./test`.
    parts: BTreeSet<String>,
    /// The names of files and folders at the root.
    root: BTreeSet<String>,
    /// How many cases the conformance suite has.
    cases: usize,
}

impl Facts {
    pub(crate) fn read(metadata: &Value) -> Self {
        let packages = metadata["packages"].as_array().into_iter().flatten();
        let names = packages.clone().filter_map(|package| package["name"].as_str()).map(str::to_owned);
        let targets = packages.filter_map(|package| package["targets"].as_array()).flatten();
        let is_example = |target: &&Value| target["kind"][0] == "example";
        let examples = targets.filter(is_example).filter_map(|target| target["name"].as_str());
        let script = fs::read_to_string("test").expect("run at the root of the tree");
        let functions = script.lines().filter_map(|line| line.split_once("() {")).map(|(name, _)| name);
        let root = fs::read_dir(".").expect("the root can be listed");
        let root = root.map(|entry| entry.expect("it can be listed").file_name());
        Self {
            packages: names.collect(),
            examples: examples.map(str::to_owned).collect(),
            parts: functions.chain(["fast"]).map(str::to_owned).collect(),
            root: root.map(|name| name.to_string_lossy().into_owned()).collect(),
            cases: cases(),
        }
    }
}

/// Counts the cases of the conformance suite by their ids. Each id begins a line of the source.
fn cases() -> usize {
    let files = fs::read_dir("tests/conformance/src/cases").expect("the cases are there");
    let texts = files
        .map(|entry| fs::read_to_string(entry.expect("it can be listed").path()).expect("it can be read"));
    let is_part = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let is_id = |id: &str| id.contains('/') && id.split('/').all(|part| part.chars().all(is_part));
    let begins_case = |line: &str| {
        let id = line.trim_start().strip_prefix('"').and_then(|rest| rest.split_once("\","));
        id.is_some_and(|(id, _)| is_id(id))
    };
    texts.map(|text| text.lines().filter(|line| begins_case(line)).count()).sum()
}

/// Returns a problem for each name in a document that does not exist.
pub(crate) fn check(document: &Document, facts: &Facts) -> Vec<String> {
    let mut problems = Vec::new();
    for line in &document.lines {
        let of_line = links(document, line)
            .chain(files(line, facts))
            .chain(functions(line))
            .chain(commands(line, facts))
            .chain(counts(line, facts));
        problems.extend(of_line.map(|problem| format!("{}:{}: {problem}", document.path, line.number)));
    }
    problems
}

/// Checks links to files of the tree.
fn links(document: &Document, line: &Line) -> impl Iterator<Item = String> {
    let folder = Path::new(&document.path).parent().unwrap_or(Path::new("")).to_owned();
    let targets = line.links.iter().filter(|target| !target.contains("://"));
    targets.filter_map(move |target| {
        let path = target.split('#').next().unwrap_or_default();
        let is_there = path.is_empty() || folder.join(path).exists();
        (!is_there).then(|| format!("broken link: {target}"))
    })
}

/// Checks code spans that are paths of the tree.
fn files<'a>(line: &'a Line, facts: &'a Facts) -> impl Iterator<Item = String> + 'a {
    let is_name = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    let words = line.code.iter().flat_map(|code| code.split_whitespace());
    words.filter_map(move |word| {
        let (first, rest) = word.split_once('/')?;
        let is_path = facts.root.contains(first) && first != "target" && rest.chars().all(is_name);
        (is_path && !Path::new(word).exists()).then(|| format!("{word} does not exist"))
    })
}

/// Checks that a file contains the names after it: a path in a code span, a colon, and names in
/// code spans with commas between them.
fn functions(line: &Line) -> Vec<String> {
    let mut problems = Vec::new();
    for (at, _) in line.text.match_indices("`: `") {
        let path = line.text[..at].rsplit('`').next().unwrap_or_default();
        let mut names = Vec::new();
        let mut rest = &line.text[at + "`: `".len()..];
        while let Some((name, after)) = rest.split_once('`') {
            names.push(name);
            match after.strip_prefix(", `") {
                Some(next) => rest = next,
                None => break,
            }
        }
        problems.extend(missing(path, &names));
    }
    problems
}

/// Returns a problem for each name that a Rust file does not contain, word by word.
fn missing(path: &str, names: &[&str]) -> Vec<String> {
    let is_rust = path.ends_with(".rs");
    let Some(text) = is_rust.then(|| fs::read_to_string(path).ok()).flatten() else { return Vec::new() };
    let is_between = |c: char| !c.is_ascii_alphanumeric() && c != '_';
    let words: BTreeSet<_> = text.split(is_between).collect();
    let has = |name: &&&str| name.split(is_between).all(|word| word.is_empty() || words.contains(word));
    names.iter().filter(|name| !has(name)).map(|name| format!("{path} has no {name}")).collect()
}

/// Checks packages, examples and parts of `./test` in commands.
fn commands(line: &Line, facts: &Facts) -> Vec<String> {
    let mut problems = Vec::new();
    for code in &line.code {
        let words: Vec<_> = code.split_whitespace().collect();
        if words.first() == Some(&"cargo") {
            for pair in words.windows(2) {
                let (what, known) = match pair[0] {
                    "-p" => ("package", &facts.packages),
                    "--example" => ("example", &facts.examples),
                    _ => continue,
                };
                let name = pair[1].trim_end_matches(|c: char| !c.is_alphanumeric());
                if !known.contains(name) && !is_foreign(name) {
                    problems.push(format!("there is no {what} {name}"));
                }
            }
        }
        if words.first() == Some(&"./test") {
            let parts = words[1..].iter().take_while(|word| **word != "#");
            let unknown = parts
                .filter(|part| part.chars().all(|c| c.is_ascii_lowercase()) && !facts.parts.contains(**part));
            problems.extend(unknown.map(|part| format!("./test has no part {part}")));
        }
    }
    problems
}

/// Returns `true` for a placeholder.
fn is_foreign(name: &str) -> bool {
    name.chars().all(|c| c.is_ascii_uppercase() || c == '_')
}

/// Checks the number of conformance cases, wherever a line names it.
fn counts(line: &Line, facts: &Facts) -> Vec<String> {
    let words: Vec<_> = line.text.split_whitespace().collect();
    let mut problems = Vec::new();
    for pair in words.windows(2) {
        if let (Ok(count), "cases") = (pair[0].replace(',', "").parse::<usize>(), pair[1])
            && count != facts.cases
        {
            problems.push(format!("{count} cases, where there are {}", facts.cases));
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Facts {
            packages: set(&["psrpc"]),
            examples: set(&["chat"]),
            parts: set(&["docs"]),
            root: set(&["src"]),
            cases: 3,
        }
    }

    /// Checks a document with this line in the folder of this crate.
    fn problems(text: &str) -> Vec<String> {
        let document = Document { path: "text.md".to_owned(), lines: crate::document::parse(text) };
        check(&document, &facts())
    }

    #[test]
    fn names_that_exist_are_no_problem() {
        let text =
            "`src/check.rs`: `check`, `Facts::read`; `cargo run -p psrpc`, `./test docs`, 3 cases, [it](src)";
        assert_eq!(problems(text), [] as [&str; 0]);
    }

    #[test]
    fn a_missing_name_is_reported_with_its_place() {
        assert_eq!(problems("`src/nowhere.rs`"), ["text.md:1: src/nowhere.rs does not exist"]);
        assert_eq!(
            problems("`src/crate_graph.rs`: `draw`, `nobody`"),
            ["text.md:1: src/crate_graph.rs has no nobody"]
        );
        assert_eq!(problems("`cargo run -p nobody`"), ["text.md:1: there is no package nobody"]);
        assert_eq!(problems("`cargo run --example none`"), ["text.md:1: there is no example none"]);
        assert_eq!(problems("`./test all`"), ["text.md:1: ./test has no part all"]);
        assert_eq!(problems("1,000 cases"), ["text.md:1: 1000 cases, where there are 3"]);
        assert_eq!(problems("[there](there.md)"), ["text.md:1: broken link: there.md"]);
    }
}
