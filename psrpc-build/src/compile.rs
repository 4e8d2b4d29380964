//! Compiles .proto files to descriptors. `options.proto` is always available to them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use prost_reflect::DescriptorPool;
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet,
};
use protox::Compiler;
use protox::file::{ChainFileResolver, File, FileResolver, GoogleFileResolver, IncludeFileResolver};

use crate::Error;
use crate::comments;
use crate::hint::with_hint;
use crate::well_known::is_google;

/// Compiled .proto files.
pub(crate) struct Compiled {
    pub(crate) pool: DescriptorPool,
    /// The files to pass to prost; see [`for_rust`].
    pub(crate) files: FileDescriptorSet,
    /// The encoded descriptors of all files, as compiled.
    pub(crate) descriptor_set: Vec<u8>,
    /// The paths of all files that were read; the build script reruns when one of them changes.
    pub(crate) read: Vec<PathBuf>,
}

pub(crate) fn compile(protos: &[impl AsRef<Path>], includes: &[impl AsRef<Path>]) -> Result<Compiled, Error> {
    let mut resolver = ChainFileResolver::new();
    for include in includes {
        resolver.add(IncludeResolver::new(include.as_ref()));
    }
    resolver.add(OptionsResolver);
    resolver.add(GoogleFileResolver::new());
    let mut compiler = Compiler::with_file_resolver(resolver);
    compiler.include_imports(true).include_source_info(true);
    for proto in protos.iter().map(AsRef::as_ref) {
        if located(proto, includes).is_none() && !proto.exists() {
            return Err(Error::Proto(format!("{}: no such file", proto.display())));
        }
        compiler.open_file(proto).map_err(|error| Error::Proto(text(&error, includes)))?;
    }
    let requested =
        compiler.files().filter(|file| !file.is_import()).map(|file| file.name().to_owned()).collect();
    let read = compiler.files().filter_map(|file| located(file.name().as_ref(), includes)).collect();
    Ok(Compiled {
        pool: compiler.descriptor_pool(),
        files: for_rust(compiler.file_descriptor_set(), &requested),
        descriptor_set: compiler.encode_file_descriptor_set(),
        read,
    })
}

/// Returns the path of the file that is imported as `name`.
pub(crate) fn located(name: &Path, includes: &[impl AsRef<Path>]) -> Option<PathBuf> {
    includes.iter().map(|include| include.as_ref().join(name)).find(|path| path.exists())
}

/// Formats an error as `path:line:column: message`, which editors can follow.
fn text(error: &protox::Error, includes: &[impl AsRef<Path>]) -> String {
    // Only the debug form has the line and the column.
    let text = format!("{error:?}");
    let text = match error.file() {
        Some(name) => {
            let path = located(name.as_ref(), includes).unwrap_or_else(|| name.into());
            let message = text.strip_prefix(name).unwrap_or(&text);
            match message.strip_prefix(": ").unwrap_or(message) {
                placed if placed.starts_with(':') => format!("{}{placed}", path.display()),
                message => format!("{}{}: {message}", path.display(), place_of(message, &path)),
            }
        }
        None => text,
    };
    with_hint(text, &options())
}

/// Finds the line and column of an error that has none, by the name that `message` quotes: first
/// the full name, then its last part. The name of a map entry is traced to the last map field with
/// that name. The fallback is the start of the file.
fn place_of(message: &str, path: &Path) -> String {
    let source = fs::read_to_string(path).unwrap_or_default();
    let full_name = message.split('\'').nth(1).unwrap_or_default();
    let name = full_name.rsplit('.').next().unwrap_or_default();
    let lines = || source.lines().zip(1..).filter(|(line, _)| !line.trim_start().starts_with("//"));
    let find = |name: &str| {
        let column = |line: &str| line.find(name).filter(|_| !name.is_empty());
        lines().find_map(|(line, number)| Some((line, number, column(line)?)))
    };
    // `FooBarEntry` is the compiler's name for an entry of the map `foo_bar`, and of `fooBar`.
    let folded = |name: &str| name.replace('_', "").to_lowercase();
    let field = name.strip_suffix("Entry").map(folded);
    let entries = || {
        let column = |line: &str| {
            let field_name = line.split_once('>')?.1.split('=').next()?.trim();
            let is_it = line.contains("map") && field.as_deref() == Some(&folded(field_name));
            line.find(field_name).filter(|_| is_it)
        };
        lines().filter_map(|(line, number)| Some((line, number, column(line)?))).last()
    };
    let (line, number, at) = find(full_name).or_else(|| find(name)).or_else(entries).unwrap_or(("", 1, 0));
    format!(":{number}:{}", line[..at].chars().count() + 1)
}

/// Returns the descriptors of `options.proto`.
fn options() -> DescriptorPool {
    let mut resolver = ChainFileResolver::new();
    resolver.add(OptionsResolver);
    resolver.add(GoogleFileResolver::new());
    let mut compiler = Compiler::with_file_resolver(resolver);
    compiler.open_file("options.proto").expect("our own file compiles");
    compiler.descriptor_pool()
}

/// Prepares the files for prost: drops the services that are not in `requested`, makes the comments
/// safe as doc comments, and drops files that only the compiler needs. Those are `options.proto`
/// and Google's files, unless a field has a type that they define: prost looks up the type of each
/// field, even if it generates no code for it.
pub(crate) fn for_rust(mut files: FileDescriptorSet, requested: &BTreeSet<String>) -> FileDescriptorSet {
    for file in &mut files.file {
        if !requested.contains(file.name()) {
            file.service.clear();
        }
    }
    let is_included = |file: &FileDescriptorProto| !is_google(file.package()) && !defines_options(file);
    let mut included: BTreeSet<String> =
        files.file.iter().filter(|file| is_included(file)).map(|file| file.name().to_owned()).collect();
    loop {
        let (inside, outside): (Vec<_>, Vec<_>) =
            files.file.iter().partition(|file| included.contains(file.name()));
        let mut used = BTreeSet::new();
        for file in inside {
            file.message_type.iter().for_each(|message| types_of(message, &mut used));
            let rpcs = file.service.iter().flat_map(|service| &service.method);
            used.extend(rpcs.flat_map(|rpc| [rpc.input_type(), rpc.output_type()]));
        }
        let is_used = |file: &&&FileDescriptorProto| used.iter().any(|name| defines(file, name));
        let needed: Vec<_> = outside.iter().filter(is_used).map(|file| file.name().to_owned()).collect();
        if needed.is_empty() {
            break;
        }
        included.extend(needed);
    }
    files.file.retain(|file| included.contains(file.name()));
    comments::rewrite(&mut files);
    files
}

fn defines_options(file: &FileDescriptorProto) -> bool {
    file.package() == "psrpc" && file.extension.iter().any(|extension| extension.name() == "options")
}

/// Collects the type names of a message's fields, each with a leading dot.
fn types_of<'a>(message: &'a DescriptorProto, into: &mut BTreeSet<&'a str>) {
    into.extend(message.field.iter().map(FieldDescriptorProto::type_name).filter(|name| !name.is_empty()));
    message.nested_type.iter().for_each(|nested| types_of(nested, into));
}

/// Returns `true` if a file defines the type `name` or a type that contains it.
fn defines(file: &FileDescriptorProto, name: &str) -> bool {
    let inside = match file.package() {
        "" => name.strip_prefix('.'),
        package => name.strip_prefix('.').and_then(|name| name.strip_prefix(package)?.strip_prefix('.')),
    };
    let first = inside.map(|name| name.split('.').next().unwrap_or(name));
    let messages = file.message_type.iter().map(DescriptorProto::name);
    messages.chain(file.enum_type.iter().map(EnumDescriptorProto::name)).any(|name| first == Some(name))
}

/// Finds files in a directory. It skips a byte order mark, as protoc does; the compiler would
/// reject it. Google's own files are replaced by the compiler's copies if the compiler cannot parse
/// them because they are too new.
struct IncludeResolver {
    directory: PathBuf,
    files: IncludeFileResolver,
}

impl IncludeResolver {
    fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned(), files: IncludeFileResolver::new(directory.to_owned()) }
    }
}

impl FileResolver for IncludeResolver {
    fn resolve_path(&self, path: &Path) -> Option<String> {
        self.files.resolve_path(path)
    }

    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        let source = fs::read_to_string(self.directory.join(name)).unwrap_or_default();
        let file = match source.strip_prefix('\u{FEFF}') {
            Some(source) => File::from_source(name, source),
            None => self.files.open_file(name),
        };
        file.or_else(|error| match error.is_parse() {
            true => GoogleFileResolver::new().open_file(name).map_err(|_| error),
            false => Err(error),
        })
    }
}

/// Finds `options.proto` if no include path contains one.
struct OptionsResolver;

impl FileResolver for OptionsResolver {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        if name == "options.proto" {
            return File::from_source(name, include_str!("../proto/options.proto"));
        }
        Err(protox::Error::file_not_found(name))
    }
}
