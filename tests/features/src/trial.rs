//! Runs tests in a copy of the tree, with and without a mutation.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::mutation::Mutation;

/// The time limit of a test in seconds. A test may hang without the code that it checks.
const TIMEOUT_SECONDS: &str = "60";

/// The outcome of a command.
#[derive(Clone, PartialEq, Eq)]
enum Outcome {
    Passed,
    Failed,
    /// The command did not run the test.
    Unclear(String),
}

/// A copy of the tree, for mutations.
pub struct Trials {
    tree: PathBuf,
    build: PathBuf,
    /// The outcomes of commands in the unchanged tree.
    unchanged: BTreeMap<String, Outcome>,
}

impl Trials {
    /// Creates or updates the copy. It contains the committed files and uncommitted changes to
    /// tracked files.
    pub fn new(root: &Path) -> Result<Self, String> {
        let target = root.join(env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into()));
        let target = target.join("features");
        let tree = target.join("tree");
        let stash = git(root, &["stash", "create"])?;
        let commit = if stash.is_empty() { git(root, &["rev-parse", "HEAD"])? } else { stash };
        if !tree.exists() {
            let path = tree.to_string_lossy();
            git(root, &["worktree", "prune"])?;
            git(root, &["worktree", "add", "--quiet", "--detach", &path, &commit])?;
        }
        git(&tree, &["checkout", "--quiet", "--force", "--detach", &commit])?;
        Ok(Self { tree, build: target.join("build"), unchanged: BTreeMap::new() })
    }

    /// Checks that the test passes without the mutation and fails with it. Returns the reason if
    /// not.
    pub fn check(&mut self, mutation: &Mutation) -> Result<(), String> {
        let unchanged = match self.unchanged.get(&mutation.command_line()) {
            Some(outcome) => outcome.clone(),
            None => self.run(mutation),
        };
        self.unchanged.insert(mutation.command_line(), unchanged.clone());
        match unchanged {
            Outcome::Passed => {}
            Outcome::Failed => return Err("the test fails without any change".to_owned()),
            Outcome::Unclear(reason) => return Err(format!("without any change: {reason}")),
        }
        let file = self.tree.join(&mutation.change.file);
        let (changed, text) = (mutation.apply(&self.tree)?, read(&file)?);
        write(&file, &changed)?;
        let outcome = self.run(mutation);
        write(&file, &text)?;
        match outcome {
            Outcome::Failed => Ok(()),
            Outcome::Passed => Err("the test passes without it".to_owned()),
            Outcome::Unclear(reason) => Err(reason),
        }
    }

    /// Builds and runs the command of a mutation.
    fn run(&self, mutation: &Mutation) -> Outcome {
        let words = mutation.command.iter().map(String::as_str);
        let options = words.clone().skip(1).take_while(|word| *word != "--");
        let built = match mutation.command[0].as_str() {
            "test" => self.cargo(&[], ["test", "--no-run"].into_iter().chain(options)),
            _ => self.cargo(&[], ["build"].into_iter().chain(options)),
        };
        match built {
            Ok(built) if built.status.success() => {}
            Ok(built) => {
                let errors = String::from_utf8_lossy(&built.stderr).into_owned();
                let first = errors.lines().find(|line| line.starts_with("error")).unwrap_or_default();
                return Outcome::Unclear(format!("the code does not compile: {first}"));
            }
            Err(error) => return Outcome::Unclear(error),
        }
        let output = match self.cargo(&["timeout", "--kill-after=5", TIMEOUT_SECONDS], words) {
            Ok(output) => output,
            Err(error) => return Outcome::Unclear(error),
        };
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        let passed = stdout.lines().any(|line| {
            let test = line.starts_with("test result: ok.") && !line.contains(" 0 passed");
            test || line.starts_with("conformance: ")
        });
        let failed =
            stdout.lines().any(|line| line.starts_with("test result: FAILED") || line.starts_with("FAILED "));
        match output.status.code() {
            Some(0) if passed => Outcome::Passed,
            Some(0) => Outcome::Unclear("no such test".to_owned()),
            // Killed by the time limit.
            Some(124 | 137) => Outcome::Failed,
            _ if failed => Outcome::Failed,
            _ => Outcome::Unclear(format!("the command ended with {} and no test result", output.status)),
        }
    }

    fn cargo<'a>(&self, before: &[&'a str], words: impl Iterator<Item = &'a str>) -> Result<Output, String> {
        let words: Vec<_> = before.iter().copied().chain(["cargo"]).chain(words).collect();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).current_dir(&self.tree);
        command.env("CARGO_TARGET_DIR", &self.build).env("CARGO_PROFILE_DEV_DEBUG", "0");
        // The golden files of psrpc-build must not be overwritten.
        command.env("INSTA_UPDATE", "no");
        command.output().map_err(|error| format!("{}: {error}", words[0]))
    }
}

fn git(at: &Path, words: &[&str]) -> Result<String, String> {
    let output = Command::new("git").arg("-C").arg(at).args(words).output();
    let output = output.map_err(|error| format!("git: {error}"))?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned()),
        false => Err(format!("git {}: {}", words.join(" "), String::from_utf8_lossy(&output.stderr))),
    }
}

fn read(file: &Path) -> Result<String, String> {
    fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))
}

fn write(file: &Path, text: &str) -> Result<(), String> {
    fs::write(file, text).map_err(|error| format!("{}: {error}", file.display()))
}
