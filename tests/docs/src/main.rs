//! Checks that the files, functions, commands and counts that the documents name are there, and
//! draws the picture of the crates, `docs/rooms.svg`.

mod check;
mod document;
mod rooms;

use std::fs;
use std::process::{Command, ExitCode};

use clap::Parser;

use crate::document::Document;

/// The documents at the root of the tree; those in `docs/` come on top.
const DOCUMENTS: [&str; 3] = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"];
const PICTURE: &str = "docs/rooms.svg";

/// Checks what the documents name. Run it at the root of the tree.
#[derive(Parser)]
struct Options {
    /// Draw the picture of the crates anew.
    #[arg(long)]
    update: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let metadata = metadata();
    let drawn = rooms::draw(&metadata);
    if options.update {
        fs::write(PICTURE, drawn).expect("the picture can be written");
        return ExitCode::SUCCESS;
    }
    let mut problems = Vec::new();
    if fs::read_to_string(PICTURE).ok() != Some(drawn) {
        problems.push(format!("{PICTURE} is out of date: cargo run -p psrpc-docs -- --update"));
    }
    let documents = documents();
    let facts = check::Facts::read(&metadata);
    for document in &documents {
        problems.extend(check::check(document, &facts));
    }
    for problem in &problems {
        println!("{problem}");
    }
    println!("{} documents, {} problems", documents.len(), problems.len());
    ExitCode::from(u8::from(!problems.is_empty()))
}

fn documents() -> Vec<Document> {
    let listed = fs::read_dir("docs").expect("run at the root of the tree");
    let in_docs = listed.map(|entry| entry.expect("it can be listed").path().display().to_string());
    let mut paths: Vec<_> = in_docs.filter(|path| path.ends_with(".md")).collect();
    paths.extend(DOCUMENTS.map(str::to_owned));
    paths.sort();
    paths.into_iter().map(Document::read).collect()
}

/// Returns what cargo says of the workspace.
fn metadata() -> serde_json::Value {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let arguments = ["metadata", "--no-deps", "--format-version", "1", "--locked", "--offline"];
    let output = Command::new(cargo).args(arguments).output().expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("cargo prints JSON")
}
