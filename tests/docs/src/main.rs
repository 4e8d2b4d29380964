//! Checks that the files, functions, commands and counts that the documents name exist, that the
//! pictures, tables and copies that this program makes are up to date, and that every event and
//! reason is documented.

mod check;
mod claimed_call;
mod crate_graph;
mod crate_table;
mod document;
mod listed;
mod performance;
mod section;
mod svg;

use std::fs;
use std::process::{Command, ExitCode};

use clap::Parser;
use serde_json::Value;

use crate::document::Document;
use crate::performance::Table;

/// The documents at the root of the tree; those in `docs/` are added.
const DOCUMENTS: [&str; 4] = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"];
/// The document that contains a copy of the README's example.
const GUIDE: &str = "docs/guide.md";
/// The guide of the front pages, which has the service of `docs/guide.md`. The first file is edited
/// by hand. Each crate has a copy, since a published crate contains only files of its own folder.
const FRONT_PAGES: [&str; 3] = ["psrpc/src/guide.md", "psrpc-tokio/src/guide.md", "psrpc-smol/src/guide.md"];

/// Checks that everything that the documents name exists, and that generated pictures and sections
/// are up to date. Run it at the root of the tree.
#[derive(Parser)]
struct Options {
    /// Make the pictures, and the sections of documents that come from other files.
    #[arg(long)]
    update: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let metadata = metadata();
    let mut problems = Vec::new();
    for (path, content) in made_files(&metadata, &mut problems) {
        if options.update {
            fs::write(path, content).unwrap_or_else(|error| panic!("{path}: {error}"));
        } else if fs::read_to_string(path).ok() != Some(content) {
            problems.push(format!("{path} is out of date: cargo run -p psrpc-docs -- --update"));
        }
    }
    let documents = documents();
    let facts = check::Facts::read(&metadata);
    for document in &documents {
        problems.extend(check::check(document, &facts));
    }
    let operations = read("docs/operations.md");
    for (path, begin) in listed::LISTED {
        problems.extend(listed::missing(&operations, path, begin, &read(path)));
    }
    for problem in &problems {
        println!("{problem}");
    }
    println!("{} documents, {} problems", documents.len(), problems.len());
    ExitCode::from(u8::from(!problems.is_empty()))
}

/// Makes the files that have content from other files.
fn made_files(metadata: &Value, problems: &mut Vec<String>) -> Vec<(&'static str, String)> {
    let table = Table::read(&read("docs/performance.md"));
    let mut files = vec![
        ("docs/rooms.svg", crate_graph::draw(metadata)),
        ("docs/claimed-call.svg", claimed_call::draw()),
        ("docs/performance.svg", table.draw()),
    ];
    match sections(metadata, &table) {
        Ok(documents) => files.extend(documents),
        Err(problem) => problems.push(problem),
    }
    files
}

/// Makes the documents with sections from other files, or returns which marker is missing.
fn sections(metadata: &Value, table: &Table) -> Result<Vec<(&'static str, String)>, String> {
    let readme = replace("README.md", "crates", &crate_table::make(metadata), &read("README.md"))?;
    let readme = replace("README.md", "performance", &table.sentence(), &readme)?;
    let guide = replace(GUIDE, "example", find("README.md", "example", &readme)?, &read(GUIDE))?;
    // `./test readme` compiles this code. A doctest cannot, because it has no build script.
    let service = find(GUIDE, "service", &guide)?.replace("```rust\n", "```rust,ignore\n");
    let front_page = replace(FRONT_PAGES[0], "service", &service, &read(FRONT_PAGES[0]))?;
    let mut documents = vec![("README.md", readme), (GUIDE, guide)];
    documents.extend(FRONT_PAGES.map(|path| (path, front_page.clone())));
    Ok(documents)
}

fn find<'a>(path: &str, name: &str, text: &'a str) -> Result<&'a str, String> {
    section::find(text, name).map_err(|problem| format!("{path}: {problem}"))
}

fn replace(path: &str, name: &str, content: &str, text: &str) -> Result<String, String> {
    section::replace(text, name, content).map_err(|problem| format!("{path}: {problem}"))
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}; run at the root of the tree"))
}

fn documents() -> Vec<Document> {
    let listed = fs::read_dir("docs").expect("run at the root of the tree");
    let in_docs = listed.map(|entry| entry.expect("it can be listed").path().display().to_string());
    let mut paths: Vec<_> = in_docs.filter(|path| path.ends_with(".md")).collect();
    paths.extend(DOCUMENTS.map(str::to_owned));
    paths.sort();
    paths.into_iter().map(Document::read).collect()
}

/// Returns cargo's description of the workspace.
fn metadata() -> Value {
    let json = cargo(&["metadata", "--no-deps", "--format-version", "1", "--locked", "--offline"]);
    serde_json::from_str(&json).expect("cargo prints JSON")
}

/// Runs cargo, and returns its output.
fn cargo(arguments: &[&str]) -> String {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let output = Command::new(cargo).args(arguments).output().expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("cargo prints UTF-8")
}
