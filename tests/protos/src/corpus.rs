//! The corpus: the files of all sources, group by group, generated and compiled.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::batch::{self, Batch, Faults};
use crate::sources::{SOURCES, Source};
use crate::{Error, service};

/// A .proto of a source.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct File {
    /// The name that others import it by.
    name: String,
    path: PathBuf,
}

/// The files of one directory of a source, which are generated together.
#[derive(Debug)]
pub struct Group {
    source: Source,
    /// The directory of the files, as it is imported.
    directory: String,
    files: Vec<File>,
    includes: Vec<PathBuf>,
}

impl Group {
    /// Whether there are PSRPC services in its files.
    #[must_use]
    pub fn has_services(&self) -> bool {
        let is_service = |start: &str| self.files.iter().any(|file| file.name.starts_with(start));
        self.source.services.is_some_and(is_service)
    }
}

/// What a run has found.
#[derive(Debug, Default)]
pub struct Report {
    /// How many files of each source passed, and were refused.
    counts: BTreeMap<&'static str, (usize, usize)>,
    /// The refused files by the cause.
    refused: BTreeMap<String, Vec<String>>,
    /// What rustc says of code that was generated, and errors that name no place.
    faults: Vec<String>,
    skipped: Vec<String>,
    groups: usize,
    bytes: u64,
}

/// The groups of every source that can be fetched, and why the others cannot.
///
/// # Errors
///
/// When a directory cannot be read.
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
            // What is below two roots is imported from the first, and what two roots have is that
            // of the first.
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

/// What becomes of generated code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// It is generated.
    Generate,
    /// rustc checks it.
    Check,
    /// rustdoc reads it too.
    Document,
}

/// Generates and compiles groups, until `time` is over if there is one, in batches of about `bytes`
/// of code, in the directory `NAME` of the work directory.
///
/// # Errors
///
/// When a file cannot be written, or cargo cannot be run.
#[expect(clippy::disallowed_methods, reason = "what a run has time for is told by the clock")]
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
        let began = Instant::now();
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
        let mut faults = match depth {
            Depth::Generate => Faults::new(),
            Depth::Check | Depth::Document => batch.cargo(&["check"])?,
        };
        if depth == Depth::Document && faults.is_empty() {
            faults = batch.cargo(&["doc", "--no-deps"])?;
        }
        for (unit, lines) in faults {
            let files = names.get(&unit).map_or("", |files: &String| files);
            report.faults.push(format!("{files}: {} lines of rustc, the first: {}", lines.len(), lines[0]));
        }
        longest = longest.max(began.elapsed());
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

/// Adds a group to a batch: together if they can be, and else the files that are not refused.
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
                let declared = service::declared(&file.name, &file.path).unwrap_or_default();
                let path = services.path().join(format!("corpus_s{index}.proto"));
                fs::write(&path, service::for_file(&file.name, &declared, index))?;
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
    let mut fine = Vec::new();
    for (file, proto) in group.files.iter().zip(&protos) {
        let alone = tempfile::tempdir()?;
        match batch::generate(alone.path(), std::slice::from_ref(proto), &includes) {
            Ok(()) => fine.push((file, proto)),
            Err(error) => {
                counts.1 += 1;
                let text = error.to_string();
                if !names_a_place(&text) {
                    report.faults.push(format!("{}: names no place: {text}", label(&file.name)));
                }
                report
                    .refused
                    .entry(cause(&text))
                    .or_default()
                    .push(format!("{}: {text}", label(&file.name)));
            }
        }
    }
    counts.0 += fine.len();
    let protos: Vec<_> = fine.iter().map(|(_, proto)| (*proto).clone()).collect();
    if fine.is_empty() || batch.add(&unit, &protos, &includes).is_ok() {
        names.insert(unit, label(&group.directory));
        return Ok(());
    }
    // Each can be generated, but not all together: such are two files of one package that define
    // the same.
    for (index, (file, proto)) in fine.into_iter().enumerate() {
        let unit = format!("g{number}_{index}");
        batch.add(&unit, std::slice::from_ref(proto), &includes)?;
        names.insert(unit, label(&file.name));
    }
    Ok(())
}

/// Whether an error begins with a file, and with a line and a column, which only an import that is
/// not there may lack.
fn names_a_place(error: &str) -> bool {
    let mut parts = error.splitn(4, ':');
    let file = parts.next().is_some_and(|file| file.ends_with(".proto"));
    let mut number = || parts.next().is_some_and(|part| part.parse::<u32>().is_ok());
    file && number() && number()
}

/// The cause of an error, without names and places.
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
    /// Adds sources that were not fetched.
    pub fn skip(&mut self, skipped: Vec<String>) {
        self.skipped.extend(skipped);
    }

    /// Whether nothing is wrong with the code that was generated, and some was.
    #[must_use]
    pub fn is_fine(&self) -> bool {
        self.faults.is_empty() && self.counts.values().any(|(passed, _)| *passed > 0)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| source | passed | refused |\n|---|---|---|")?;
        let (mut passed, mut refused) = (0, 0);
        for (source, counts) in &self.counts {
            writeln!(f, "| {source} | {} | {} |", counts.0, counts.1)?;
            passed += counts.0;
            refused += counts.1;
        }
        writeln!(
            f,
            "| all, {} groups, {} MB of code | {passed} | {refused} |",
            self.groups,
            self.bytes / 1_000_000
        )?;
        for (cause, files) in &self.refused {
            writeln!(f, "refused {}: {cause}\n    such as {}", files.len(), files[0])?;
        }
        for skipped in &self.skipped {
            writeln!(f, "skipped {skipped}")?;
        }
        for fault in &self.faults {
            writeln!(f, "FAULT {fault}")?;
        }
        Ok(())
    }
}
