//! Snapshots: the texts of a crate, and how two versions of them differ.

use std::collections::BTreeSet;
use std::error::Error;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use crate::scan::scan;

/// A file whose literals are generated code; the golden files of psrpc-build show it.
const TEMPLATES: &str = "psrpc-build/src/generate.rs";

/// Returns the texts of a crate, as lines of file, kind and text.
pub(crate) fn of_crate(folder: &Path) -> Result<String, Box<dyn Error>> {
    let mut texts_of_files = Vec::new();
    let mut tests = BTreeSet::new();
    for path in files(folder)? {
        if path.ends_with(TEMPLATES) {
            continue;
        }
        let source = fs::read_to_string(&path)?;
        let tokens = source.parse().map_err(|error| format!("{}: {error}", path.display()))?;
        let (texts, modules) = scan(tokens);
        tests.extend(modules.iter().map(|name| module_folder(&path).join(name)));
        texts_of_files.push((path, texts));
    }
    // Modules of tests are known once every file has been read.
    texts_of_files.retain(|(path, _)| !path.with_extension("").ancestors().any(|path| tests.contains(path)));
    let mut snapshot = String::new();
    for (path, texts) in texts_of_files {
        let file = path.strip_prefix(folder)?.display();
        for text in texts {
            writeln!(snapshot, "{file}: {text}")?;
        }
    }
    Ok(snapshot)
}

/// Returns the Rust files below a folder, sorted.
fn files(folder: &Path) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Returns the folder of the modules that a file declares.
fn module_folder(path: &Path) -> PathBuf {
    let names_its_folder = ["lib.rs", "main.rs", "mod.rs"].iter().any(|name| path.ends_with(name));
    if names_its_folder { path.parent().unwrap_or(path).to_owned() } else { path.with_extension("") }
}

/// Returns the lines that were removed, with a minus, and those that were added, with a plus.
pub(crate) fn difference(reviewed: &str, current: &str) -> Vec<String> {
    let known: BTreeSet<_> = reviewed.lines().collect();
    let found: BTreeSet<_> = current.lines().collect();
    let removed = known.difference(&found).map(|line| format!("- {line}"));
    let added = found.difference(&known).map(|line| format!("+ {line}"));
    removed.chain(added).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the snapshot of a crate with this file.
    fn snapshot(source: &str) -> String {
        let (texts, _) = scan(source.parse().expect("the source has tokens"));
        texts.iter().map(|text| format!("lib.rs: {text}\n")).collect()
    }

    #[test]
    fn a_changed_text_is_named() {
        let reviewed = snapshot(r#"fn f() { Err("no such hat") } fn g() { panic!("torn") }"#);
        let current = snapshot(r#"fn f() { Err("the hat is unknown") } fn g() { panic!("torn") }"#);
        assert_eq!(
            difference(&reviewed, &current),
            [r#"- lib.rs: error "no such hat""#, r#"+ lib.rs: error "the hat is unknown""#]
        );
    }

    #[test]
    fn a_changed_level_target_or_field_of_a_log_message_is_named() {
        let reviewed = snapshot(r#"fn f() { warn!(target: "hats", id, "lost") }"#);
        let current = snapshot(r#"fn f() { info!(target: "hats", id, size, "lost") }"#);
        assert_eq!(
            difference(&reviewed, &current),
            [r#"- lib.rs: log warn hats[id] "lost""#, r#"+ lib.rs: log info hats[id size] "lost""#]
        );
    }

    #[test]
    fn moved_code_is_no_change() {
        let reviewed = snapshot(r#"fn f() { Err("no such hat") } fn g() { panic!("torn") }"#);
        let current = snapshot(r#"fn g() { panic!("torn") } fn f() { Err("no such hat") }"#);
        assert_eq!(difference(&reviewed, &current), [] as [&str; 0]);
    }
}
