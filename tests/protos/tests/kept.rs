//! Files that something was found with once, each with its right answer in the first line: that it
//! compiles, or the error. Beside them the files that psrpc-build is tested with.

use std::fs;
use std::path::{Path, PathBuf};

use psrpc_protos::Error;
use psrpc_protos::batch::Batch;

const KEPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/kept");
const REVIEWED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../psrpc-build/tests/protos");

/// The .proto files in a directory, by their names.
fn protos(directory: &str) -> Result<Vec<PathBuf>, Error> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory)? {
        paths.push(entry?.path());
    }
    paths.sort();
    Ok(paths)
}

/// Adds a file to a batch under the name of the file.
fn add(batch: &mut Batch, path: &Path) -> Result<(), psrpc_build::Error> {
    let unit = path.file_stem().unwrap_or_default().to_string_lossy().replace('-', "_");
    let include = path.parent().unwrap_or(path).to_owned();
    batch.add(&format!("u_{unit}"), &[path.to_owned()], &[include])
}

/// Demands that cargo has nothing to say of a batch.
fn check(batch: &Batch, command: &[&str]) -> Result<(), Error> {
    let faults = batch.cargo(command)?;
    assert!(faults.is_empty(), "{command:?}: {faults:#?}");
    Ok(())
}

#[test]
fn every_file_that_was_kept_has_its_right_answer() -> Result<(), Error> {
    let mut batch = Batch::new("kept")?;
    for path in protos(KEPT)? {
        let source = fs::read_to_string(&path)?;
        let wanted = source.lines().next().and_then(|line| line.strip_prefix("// ")).unwrap_or_default();
        let answer = match add(&mut batch, &path) {
            Ok(()) => "compiles".to_owned(),
            Err(error) => error.to_string().replacen(&format!("{}:", path.display()), "refused: ", 1),
        };
        assert_eq!(answer, wanted, "{}", path.display());
    }
    check(&batch, &["check"])?;
    check(&batch, &["doc", "--no-deps"])?;
    // Nothing of a comment is a doctest; those of rustdoc itself would be faults of the compiler.
    check(&batch, &["test", "--doc"])
}

/// The first file of each kind, and what users ask of their own code.
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
