//! Reads docs/features.md and checks that the tests it names exist.

use std::fs;
use std::path::Path;

use crate::mutation::Mutation;

/// The path of the document, relative to the root.
const DOCUMENT: &str = "docs/features.md";

/// A row of the document.
pub struct Row {
    id: String,
    tests: String,
}

/// Returns the table rows whose first cell is an id such as `G1`.
pub fn rows(root: &Path) -> Result<Vec<Row>, String> {
    let text = fs::read_to_string(root.join(DOCUMENT)).map_err(|error| format!("{DOCUMENT}: {error}"))?;
    let cells = |line: &str| line.split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
    let rows = text.lines().map(cells).filter(|cells| cells.len() == 6 && is_id(&cells[1]));
    Ok(rows.map(|cells| Row { id: cells[1].clone(), tests: cells[4].clone() }).collect())
}

fn is_id(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_uppercase()) && text[1..].parse::<u8>().is_ok()
}

/// Checks the document and the mutations without building anything. Returns the problems found.
pub fn problems(root: &Path, rows: &[Row], mutations: &[Mutation]) -> Vec<String> {
    let mut problems = Vec::new();
    let cases = fs::read_dir(root.join("tests/conformance/src/cases"));
    let cases = cases.map(|files| files.flatten().filter_map(|file| fs::read_to_string(file.path()).ok()));
    let cases: String = cases.map(Iterator::collect).unwrap_or_default();
    for Row { id, tests } in rows {
        if !mutations.iter().any(|mutation| mutation.row == *id) && tests != "later" {
            problems.push(format!("{id}: no mutation in mutations.txt"));
        }
        // Names in backticks: a file, then tests in it or ids of conformance cases.
        let mut file = String::new();
        for name in tests.split('`').skip(1).step_by(2) {
            let exists = if name.ends_with(".rs") {
                file = fs::read_to_string(root.join(name)).unwrap_or_default();
                !file.is_empty()
            } else if name.contains('/') {
                cases.contains(&format!("\"{name}\""))
            } else {
                file.contains(&format!("fn {name}("))
            };
            if !exists {
                problems.push(format!("{id}: {DOCUMENT} names {name}, which does not exist"));
            }
        }
    }
    for mutation in mutations {
        let named = format!("`{}`", mutation.test());
        match rows.iter().find(|row| row.id == mutation.row) {
            None => problems.push(format!("{}: {DOCUMENT} has no such row", mutation.row)),
            Some(row) if !row.tests.contains(&named) => {
                problems.push(format!("{}: {DOCUMENT} does not name {named}", mutation.row));
            }
            Some(_) => problems.extend(mutation.apply(root).err()),
        }
    }
    problems
}
