//! Generates and compiles the files of all sources, group by group.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::batch::{self, Batch, CompilerErrors};
use crate::sources::{SOURCES, Source};
use crate::{Error, service};

/// A .proto file of a source.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct File {
    /// The name by which other files import it.
    name: String,
    path: PathBuf,
}

/// The files in one directory of a source, which are generated together.
#[derive(Debug)]
pub struct Group {
    source: Source,
    /// The directory of the files, relative to its root.
    directory: String,
    files: Vec<File>,
    includes: Vec<PathBuf>,
}

impl Group {
    /// Returns `true` if its files contain PSRPC services.
    #[must_use]
    pub fn has_services(&self) -> bool {
        let is_service = |start: &str| self.files.iter().any(|file| file.name.starts_with(start));
        self.source.services.is_some_and(is_service)
    }
}

/// The result of a run.
#[derive(Debug, Default)]
pub struct Report {
    /// The numbers of passed and rejected files of each source.
    counts: BTreeMap<&'static str, (usize, usize)>,
    /// The rejected files, by cause.
    rejected: BTreeMap<String, Vec<String>>,
    /// Compiler errors in generated code, and psrpc-build errors without a place.
    errors: Vec<String>,
    skipped: Vec<String>,
    groups: usize,
    bytes: u64,
}

/// Returns the groups of every source that can be fetched, and the reasons that the others cannot.
///
/// # Errors
///
/// Returns an error if a directory cannot be read.
pub fn groups(cache: &Path, only: Option<&str>) -> Result<(Vec<Group>, Vec<String>), Error> {
    let (mut groups, mut skipped) = (Vec::new(), Vec::new());
    for source in SOURCES.iter().filter(|source| only.is_none_or(|only| source.package.contains(only))) {
        match source.fetch(cache) {
            Ok(directory) => groups.extend(groups_of(source, &directory)?),
            Err(error) => skipped.push(format!("{}: {error}", source.package)),
        }
    }
    Ok((groups, skipped))
}

fn groups_of(source: &Source, directory: &Path) -> Result<Vec<Group>, Error> {
    let includes: Vec<_> = source.roots.iter().map(|root| directory.join(root)).collect();
    let mut seen = BTreeSet::new();
    let mut by_directory: BTreeMap<String, Vec<File>> = BTreeMap::new();
    for root in &includes {
        let mut paths = Vec::new();
        walk(root, &mut paths)?;
        paths.sort();
        for path in paths {
            let name = path.strip_prefix(root)?.to_string_lossy().replace('\\', "/");
            // If a file is below two roots, or two roots have files with the same name, the
            // first root wins, as in an import.
            if seen.insert(path.canonicalize()?) && seen.insert(PathBuf::from(&name)) {
                let parent = name.rsplit_once('/').map_or("", |(parent, _)| parent).to_owned();
                by_directory.entry(parent).or_default().push(File { name, path });
            }
        }
    }
    let group = |(directory, files)| Group { source: *source, directory, files, includes: includes.clone() };
    Ok(by_directory.into_iter().map(group).collect())
}

fn walk(directory: &Path, into: &mut Vec<PathBuf>) -> Result<(), Error> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            walk(&path, into)?;
        } else if path.extension().is_some_and(|extension| extension == "proto") {
            into.push(path);
        }
    }
    Ok(())
}

/// The checks to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Generate code.
    Generate,
    /// Also compile it.
    Check,
    /// Also build its documentation.
    Document,
}

/// Generates and compiles groups in batches of about `bytes` of code, in the directory `name` of
/// the work directory. Stops when `time` is over, if it is set.
///
/// # Errors
///
/// Returns an error if a file cannot be written, or cargo cannot be run.
#[expect(clippy::disallowed_methods, reason = "limits the duration of a run")]
pub fn run(
    name: &str,
    groups: &[Group],
    time: Option<Duration>,
    bytes: u64,
    depth: Depth,
) -> Result<Report, Error> {
    let started = Instant::now();
    let mut report = Report::default();
    let mut longest = Duration::ZERO;
    let mut rest = groups.iter();
    let mut number = 0;
    loop {
        let batch_started = Instant::now();
        if time.is_some_and(|time| started.elapsed() + longest * 3 / 2 > time) {
            break;
        }
        let mut batch = Batch::new(name)?;
        let mut names = BTreeMap::new();
        while batch.bytes()? < bytes {
            let Some(group) = rest.next() else { break };
            number += 1;
            add(&mut batch, group, number, &mut names, &mut report)?;
        }
        if batch.is_empty() && rest.len() == 0 {
            break;
        }
        report.bytes += batch.bytes()?;
        let mut errors = match depth {
            Depth::Generate => CompilerErrors::new(),
            Depth::Check | Depth::Document => batch.cargo(&["check"])?,
        };
        if depth == Depth::Document && errors.is_empty() {
            errors = batch.cargo(&["doc", "--no-deps"])?;
        }
        for (unit, lines) in errors {
            let files = names.get(&unit).map_or("", |files: &String| files);
            report.errors.push(format!("{files}: {} compiler errors, the first: {}", lines.len(), lines[0]));
        }
        longest = longest.max(batch_started.elapsed());
        println!(
            "{number} of {} groups, {} MB of code, {} s",
            groups.len(),
            report.bytes / 1_000_000,
            started.elapsed().as_secs()
        );
    }
    report.groups = number;
    Ok(report)
}

/// Adds a group to a batch: all of its files at once if possible, otherwise each file that is not
/// rejected.
fn add(
    batch: &mut Batch,
    group: &Group,
    number: usize,
    names: &mut BTreeMap<String, String>,
    report: &mut Report,
) -> Result<(), Error> {
    let services = tempfile::tempdir()?;
    let mut includes = group.includes.clone();
    includes.push(services.path().to_owned());
    let label = |files: &str| format!("{} {files}", group.source.package);
    let mut protos = Vec::new();
    for (index, file) in group.files.iter().enumerate() {
        protos.push(match group.source.services {
            Some(start) if file.name.starts_with(start) => file.path.clone(),
            _ => {
                let file_descriptor = service::parse(&file.name, &file.path).unwrap_or_default();
                let path = services.path().join(format!("corpus_s{index}.proto"));
                fs::write(&path, service::for_file(&file.name, &file_descriptor, index))?;
                path
            }
        });
    }
    let counts = report.counts.entry(group.source.package).or_default();
    let unit = format!("g{number}");
    if batch.add(&unit, &protos, &includes).is_ok() {
        counts.0 += protos.len();
        names.insert(unit, label(&group.directory));
        return Ok(());
    }
    let mut accepted = Vec::new();
    for (file, proto) in group.files.iter().zip(&protos) {
        let alone = tempfile::tempdir()?;
        match batch::generate(alone.path(), std::slice::from_ref(proto), &includes) {
            Ok(()) => accepted.push((file, proto)),
            Err(error) => {
                counts.1 += 1;
                let text = error.to_string();
                if !has_place(&text) {
                    report.errors.push(format!("{}: error without a place: {text}", label(&file.name)));
                }
                report
                    .rejected
                    .entry(cause(&text))
                    .or_default()
                    .push(format!("{}: {text}", label(&file.name)));
            }
        }
    }
    counts.0 += accepted.len();
    let protos: Vec<_> = accepted.iter().map(|(_, proto)| (*proto).clone()).collect();
    if accepted.is_empty() || batch.add(&unit, &protos, &includes).is_ok() {
        names.insert(unit, label(&group.directory));
        return Ok(());
    }
    // Each file can be generated, but not all together: for example, two files of one package
    // define the same type.
    for (index, (file, proto)) in accepted.into_iter().enumerate() {
        let unit = format!("g{number}_{index}");
        batch.add(&unit, std::slice::from_ref(proto), &includes)?;
        names.insert(unit, label(&file.name));
    }
    Ok(())
}

/// Returns `true` if an error starts with a file, a line and a column.
fn has_place(error: &str) -> bool {
    let mut parts = error.splitn(4, ':');
    let file = parts.next().is_some_and(|file| file.ends_with(".proto"));
    let mut number = || parts.next().is_some_and(|part| part.parse::<u32>().is_ok());
    file && number() && number()
}

/// Returns an error without its place and the names in quotes, to group similar errors.
fn cause(error: &str) -> String {
    let text = error.split_once(".proto:").map_or(error, |(_, text)| text);
    let text = text.trim_start_matches(|c: char| c.is_ascii_digit() || c == ':' || c == ' ');
    let mut cause = String::new();
    let mut quote = None;
    for c in text.chars() {
        match quote {
            Some(end) if c == end => quote = None,
            Some(_) => continue,
            None if matches!(c, '\'' | '`' | '"') => quote = Some(c),
            None => {}
        }
        cause.push(c);
    }
    cause
}

impl Report {
    /// Adds sources that could not be fetched.
    pub fn skip(&mut self, skipped: Vec<String>) {
        self.skipped.extend(skipped);
    }

    /// Returns `true` if files passed and all generated code compiles.
    #[must_use]
    pub fn is_success(&self) -> bool {
        self.errors.is_empty() && self.counts.values().any(|(passed, _)| *passed > 0)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| source | passed | rejected |\n|---|---|---|")?;
        let (mut passed, mut rejected) = (0, 0);
        for (source, counts) in &self.counts {
            writeln!(f, "| {source} | {} | {} |", counts.0, counts.1)?;
            passed += counts.0;
            rejected += counts.1;
        }
        writeln!(
            f,
            "| all, {} groups, {} MB of code | {passed} | {rejected} |",
            self.groups,
            self.bytes / 1_000_000
        )?;
        for (cause, files) in &self.rejected {
            writeln!(f, "rejected {}: {cause}\n    such as {}", files.len(), files[0])?;
        }
        for skipped in &self.skipped {
            writeln!(f, "skipped {skipped}")?;
        }
        for error in &self.errors {
            writeln!(f, "ERROR {error}")?;
        }
        Ok(())
    }
}
