//! A copy of the tree with replaced files.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Updates the copy: the files that git tracks or would track, and the `replaced` ones.
///
/// Writes only files whose content differs, so that cargo rebuilds only those. Removes files that
/// the tree no longer has.
pub(crate) fn update(root: &Path, copy: &Path, replaced: &BTreeMap<String, String>) -> Result<(), String> {
    let files = files(root)?.into_iter().filter(|file| root.join(file).is_file());
    let files: BTreeSet<_> = files.chain(replaced.keys().map(PathBuf::from)).collect();
    for file in &files {
        let replaced = file.to_str().and_then(|file| replaced.get(file));
        let content = match replaced {
            Some(text) => Ok(text.clone().into_bytes()),
            None => fs::read(root.join(file)),
        };
        let written = content.and_then(|content| write(&copy.join(file), &content));
        written.map_err(|error| format!("cannot copy {}: {error}", file.display()))?;
    }
    remove_others(copy, Path::new(""), &files)
        .map_err(|error| format!("cannot clean up {}: {error}", copy.display()))
}

fn files(root: &Path) -> Result<Vec<PathBuf>, String> {
    let listed = Command::new("git")
        .arg("-C")
        .arg(root)
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .output()
        .map_err(|error| format!("cannot run git: {error}"))?;
    if !listed.status.success() {
        return Err(format!("git ls-files failed: {}", String::from_utf8_lossy(&listed.stderr)));
    }
    let names = String::from_utf8(listed.stdout)
        .map_err(|error| format!("cannot read the output of git ls-files: {error}"))?;
    Ok(names.split_terminator('\0').map(PathBuf::from).collect())
}

fn write(file: &Path, content: &[u8]) -> io::Result<()> {
    if fs::read(file).is_ok_and(|old| old == content) {
        return Ok(());
    }
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(file, content)
}

fn remove_others(copy: &Path, folder: &Path, files: &BTreeSet<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(copy.join(folder))? {
        let entry = entry?;
        let path = folder.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            remove_others(copy, &path, files)?;
        } else if !files.contains(&path) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_that_differ_are_written_and_files_that_are_gone_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let (root, copy) = (folder.path().join("root"), folder.path().join("copy"));
        fs::create_dir_all(root.join("src")).unwrap();
        fs::write(root.join("src/a.rs"), "a").unwrap();
        fs::write(root.join("b.rs"), "b").unwrap();
        let initialized = Command::new("git").arg("-C").arg(&root).args(["init", "--quiet"]).status();
        assert!(initialized.unwrap().success());
        let replaced = BTreeMap::from([("src/a.rs".to_owned(), "planted".to_owned())]);
        update(&root, &copy, &replaced).unwrap();
        assert_eq!(fs::read_to_string(copy.join("src/a.rs")).unwrap(), "planted");
        assert_eq!(fs::read_to_string(copy.join("b.rs")).unwrap(), "b");

        let written = fs::metadata(copy.join("src/a.rs")).unwrap().modified().unwrap();
        fs::remove_file(root.join("b.rs")).unwrap();
        update(&root, &copy, &replaced).unwrap();
        assert_eq!(fs::metadata(copy.join("src/a.rs")).unwrap().modified().unwrap(), written);
        assert!(!copy.join("b.rs").exists());
        assert_eq!(fs::read_to_string(root.join("src/a.rs")).unwrap(), "a");
    }
}
