//! Compiling: from .proto files to descriptors, with `options.proto` at hand.

use std::path::{Path, PathBuf};

use prost_reflect::DescriptorPool;
use prost_types::FileDescriptorSet;
use protox::Compiler;
use protox::file::{ChainFileResolver, File, FileResolver, GoogleFileResolver, IncludeFileResolver};

use crate::Error;
use crate::hint::with_hint;

/// Compiled .proto files.
pub(crate) struct Compiled {
    pub(crate) pool: DescriptorPool,
    /// What Rust code is to be generated for: not the options, which are for the compiler alone.
    pub(crate) files: FileDescriptorSet,
    /// The files that were read, so that a change of one of them can be noticed.
    pub(crate) read: Vec<PathBuf>,
}

pub(crate) fn compile(protos: &[impl AsRef<Path>], includes: &[impl AsRef<Path>]) -> Result<Compiled, Error> {
    let mut resolver = ChainFileResolver::new();
    for include in includes {
        resolver.add(IncludeFileResolver::new(include.as_ref().to_owned()));
    }
    resolver.add(OptionsResolver);
    resolver.add(GoogleFileResolver::new());
    let mut compiler = Compiler::with_file_resolver(resolver);
    compiler.include_imports(true).include_source_info(true);
    for proto in protos.iter().map(AsRef::as_ref) {
        if located(proto, includes).is_none() && !proto.exists() {
            return Err(Error::Proto(format!("{}: there is no such file", proto.display())));
        }
        compiler.open_file(proto).map_err(|error| Error::Proto(text(&error, includes)))?;
    }
    let read = compiler.files().filter_map(|file| file.path().map(Path::to_owned)).collect();
    Ok(Compiled { pool: compiler.descriptor_pool(), files: for_rust(compiler.file_descriptor_set()), read })
}

/// The file that is imported as `name`, where it lies.
pub(crate) fn located(name: &Path, includes: &[impl AsRef<Path>]) -> Option<PathBuf> {
    includes.iter().map(|include| include.as_ref().join(name)).find(|path| path.exists())
}

/// What is wrong and where, in a form that an editor can follow.
fn text(error: &protox::Error, includes: &[impl AsRef<Path>]) -> String {
    // The debug form has the line and the column, where they are known.
    let text = format!("{error:?}");
    let text = match error.file() {
        Some(name) => {
            let path = located(name.as_ref(), includes).unwrap_or_else(|| name.into());
            let what = text.strip_prefix(name).unwrap_or(&text);
            let separator = if what.starts_with(':') { "" } else { ": " };
            format!("{}{separator}{what}", path.display())
        }
        None => text,
    };
    with_hint(text, &options())
}

/// Our options alone.
fn options() -> DescriptorPool {
    let mut resolver = ChainFileResolver::new();
    resolver.add(OptionsResolver);
    resolver.add(GoogleFileResolver::new());
    let mut compiler = Compiler::with_file_resolver(resolver);
    compiler.open_file("options.proto").expect("our own file compiles");
    compiler.descriptor_pool()
}

/// The files that Rust code is to be generated for, with comments that can be doc comments.
pub(crate) fn for_rust(mut files: FileDescriptorSet) -> FileDescriptorSet {
    files.file.retain(|file| file.package() != "psrpc" && file.package() != "google.protobuf");
    let infos = files.file.iter_mut().filter_map(|file| file.source_code_info.as_mut());
    for location in infos.flat_map(|info| &mut info.location) {
        let below = location.leading_comments.iter_mut().chain(&mut location.trailing_comments);
        for comment in below.chain(&mut location.leading_detached_comments) {
            // Rust takes a carriage return as the end of a line only where a newline follows.
            *comment = comment.replace("\r\n", "\n").replace('\r', "\n");
        }
    }
    files
}

/// Finds our `options.proto`, when no include path has one.
struct OptionsResolver;

impl FileResolver for OptionsResolver {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        if name == "options.proto" {
            return File::from_source(name, include_str!("../proto/options.proto"));
        }
        Err(protox::Error::file_not_found(name))
    }
}
