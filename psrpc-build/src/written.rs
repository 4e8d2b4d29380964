//! Records which files each package was generated from in this process, so that a later call does
//! not silently overwrite its code. Output of an earlier build may be overwritten.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use prost_types::FileDescriptorSet;

use crate::Error;
use crate::compile::located;

/// The input of one call.
#[derive(Debug)]
pub(crate) struct Call {
    /// The source files of each package.
    packages: BTreeMap<String, BTreeSet<Source>>,
    settings: String,
}

/// A source file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Source {
    path: PathBuf,
    /// True if code is generated for its services.
    has_services: bool,
}

/// An output file.
struct Written {
    sources: BTreeSet<Source>,
    settings: String,
    code: Vec<u8>,
}

static WRITTEN: Mutex<BTreeMap<PathBuf, Written>> = Mutex::new(BTreeMap::new());

impl Call {
    pub(crate) fn of(files: &FileDescriptorSet, includes: &[impl AsRef<Path>], settings: String) -> Self {
        let mut packages: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
        for file in &files.file {
            let path = located(file.name().as_ref(), includes).unwrap_or_else(|| file.name().into());
            let source = Source { path, has_services: !file.service.is_empty() };
            packages.entry(file.package().to_owned()).or_default().insert(source);
        }
        Self { packages, settings }
    }

    /// Records the files that were written to `directory`; `file_names` maps a package to its file
    /// names.
    pub(crate) fn record(
        self,
        directory: &Path,
        file_names: impl Fn(&str) -> [String; 2],
    ) -> Result<(), Error> {
        let mut written = WRITTEN.lock().unwrap_or_else(PoisonError::into_inner);
        for (package, sources) in self.packages {
            let [name, _] = file_names(&package);
            let path = directory.join(name);
            // A package without types or services has no file.
            let Ok(code) = fs::read(&path) else { continue };
            if let Some(earlier) = written.get(&path) {
                let keeps_all = earlier.settings == self.settings && earlier.sources.is_subset(&sources);
                if earlier.code != code && !keeps_all {
                    return Err(Error::Overwritten {
                        package: if package.is_empty() { "without a name".to_owned() } else { package },
                        earlier: list(&earlier.sources),
                        later: list(&sources),
                    });
                }
            }
            written.insert(path, Written { sources, settings: self.settings.clone(), code });
        }
        Ok(())
    }
}

/// Lists the first few sources.
fn list(sources: &BTreeSet<Source>) -> String {
    const SHOWN: usize = 3;
    let paths = sources.iter().take(SHOWN).map(|source| source.path.display().to_string());
    let list = paths.collect::<Vec<_>>().join(", ");
    match sources.len().saturating_sub(SHOWN) {
        0 => list,
        more => format!("{list} and {more} more"),
    }
}
