//! Regression tests: .proto files with the expected result in the first line, `compiles` or the
//! error. The files of psrpc-build's tests are checked as well.

use std::fs;
use std::path::{Path, PathBuf};

use psrpc_protos::Error;
use psrpc_protos::batch::Batch;

const KEPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/kept");
const REVIEWED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../psrpc-build/tests/protos");

/// Returns the sorted paths of the .proto files in a directory.
fn protos(directory: &str) -> Result<Vec<PathBuf>, Error> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory)? {
        paths.push(entry?.path());
    }
    paths.sort();
    Ok(paths)
}

/// Adds a file to a batch, named after the file.
fn add(batch: &mut Batch, path: &Path) -> Result<(), psrpc_build::Error> {
    let unit = path.file_stem().unwrap_or_default().to_string_lossy().replace('-', "_");
    let include = path.parent().unwrap_or(path).to_owned();
    batch.add(&format!("u_{unit}"), &[path.to_owned()], &[include])
}

/// Checks that cargo reports no errors or warnings for a batch.
fn check(batch: &Batch, command: &[&str]) -> Result<(), Error> {
    let errors = batch.cargo(command)?;
    assert!(errors.is_empty(), "{command:?}: {errors:#?}");
    Ok(())
}

#[test]
fn every_file_that_was_kept_has_its_right_answer() -> Result<(), Error> {
    let mut batch = Batch::new("kept")?;
    for path in protos(KEPT)? {
        let source = fs::read_to_string(&path)?;
        let expected = source.lines().next().and_then(|line| line.strip_prefix("// ")).unwrap_or_default();
        let result = match add(&mut batch, &path) {
            Ok(()) => "compiles".to_owned(),
            Err(error) => error.to_string().replacen(&format!("{}:", path.display()), "refused: ", 1),
        };
        assert_eq!(result, expected, "{}", path.display());
    }
    check(&batch, &["check"])?;
    check(&batch, &["doc", "--no-deps"])?;
    // Comments must not become doctests. Compiler errors in doctests would be reported here.
    check(&batch, &["test", "--doc"])
}

/// Checks one file of each kind under lints that users may enable.
#[test]
fn generated_code_is_clean_under_all_lints() -> Result<(), Error> {
    let mut batch = Batch::new("lints")?;
    batch.deny("clippy::all").deny("clippy::pedantic");
    for path in protos(REVIEWED)? {
        add(&mut batch, &path)?;
    }
    add(&mut batch, &Path::new(KEPT).join("comments.proto"))?;
    check(&batch, &["clippy"])
}

#[test]
fn generated_code_is_documented_where_the_file_is() -> Result<(), Error> {
    let mut batch = Batch::new("documented")?;
    batch.deny("missing_docs");
    add(&mut batch, &Path::new(KEPT).join("comments.proto"))?;
    check(&batch, &["check"])
}
