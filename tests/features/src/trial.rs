//! Trials: commands in a copy of the tree, with a mutation and without.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::mutation::Mutation;

/// How long a test may take, in seconds: without the code that it is about it may never end.
const AT_MOST: &str = "60";

/// What a test did.
#[derive(Clone, PartialEq, Eq)]
enum Outcome {
    Passed,
    Failed,
    /// What was built or run was something else.
    Unclear(String),
}

/// A copy of the tree to change at will.
pub struct Trials {
    tree: PathBuf,
    build: PathBuf,
    /// What the commands do without any change.
    unchanged: BTreeMap<String, Outcome>,
}

impl Trials {
    /// Makes the copy, or brings it up to date: what is committed, and what is changed and known to
    /// git.
    pub fn new(root: &Path) -> Result<Self, String> {
        let target = root.join(env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into()));
        let target = target.join("features");
        let tree = target.join("tree");
        let stash = git(root, &["stash", "create"])?;
        let now = if stash.is_empty() { git(root, &["rev-parse", "HEAD"])? } else { stash };
        if !tree.exists() {
            let path = tree.to_string_lossy();
            git(root, &["worktree", "prune"])?;
            git(root, &["worktree", "add", "--quiet", "--detach", &path, &now])?;
        }
        git(&tree, &["checkout", "--quiet", "--force", "--detach", &now])?;
        Ok(Self { tree, build: target.join("build"), unchanged: BTreeMap::new() })
    }

    /// Whether the test passes without the mutation, and fails with it; if not, why not.
    pub fn shows(&mut self, mutation: &Mutation) -> Result<(), String> {
        let unchanged = match self.unchanged.get(&mutation.shown()) {
            Some(outcome) => outcome.clone(),
            None => self.run(mutation),
        };
        self.unchanged.insert(mutation.shown(), unchanged.clone());
        match unchanged {
            Outcome::Passed => {}
            Outcome::Failed => return Err("the test fails without any change".to_owned()),
            Outcome::Unclear(why) => return Err(format!("without any change: {why}")),
        }
        let file = self.tree.join(&mutation.change.file);
        let (changed, text) = (mutation.apply(&self.tree)?, read(&file)?);
        write(&file, &changed)?;
        let outcome = self.run(mutation);
        write(&file, &text)?;
        match outcome {
            Outcome::Failed => Ok(()),
            Outcome::Passed => Err("the test passes without it".to_owned()),
            Outcome::Unclear(why) => Err(why),
        }
    }

    /// Builds what a mutation's command runs, and then runs it.
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
                return Outcome::Unclear(format!("it does not compile: {first}"));
            }
            Err(error) => return Outcome::Unclear(error),
        }
        let ran = match self.cargo(&["timeout", "--kill-after=5", AT_MOST], words) {
            Ok(ran) => ran,
            Err(error) => return Outcome::Unclear(error),
        };
        let said = String::from_utf8_lossy(&ran.stdout).into_owned();
        let passed = said.lines().any(|line| {
            let test = line.starts_with("test result: ok.") && !line.contains(" 0 passed");
            test || line.starts_with("conformance: ")
        });
        let failed =
            said.lines().any(|line| line.starts_with("test result: FAILED") || line.starts_with("FAILED "));
        match ran.status.code() {
            Some(0) if passed => Outcome::Passed,
            Some(0) => Outcome::Unclear("there is no such test".to_owned()),
            // It never ended.
            Some(124 | 137) => Outcome::Failed,
            _ if failed => Outcome::Failed,
            _ => Outcome::Unclear(format!("it ended with {} and no verdict", ran.status)),
        }
    }

    fn cargo<'a>(&self, before: &[&'a str], words: impl Iterator<Item = &'a str>) -> Result<Output, String> {
        let words: Vec<_> = before.iter().copied().chain(["cargo"]).chain(words).collect();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).current_dir(&self.tree);
        command.env("CARGO_TARGET_DIR", &self.build).env("CARGO_PROFILE_DEV_DEBUG", "0");
        // What the generator's tests compare with is not to be replaced.
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
