//! Generates a service for a .proto without PSRPC services. It uses every message of the file.

use std::fmt::Write;
use std::path::Path;

use prost_types::{DescriptorProto, FileDescriptorProto, MessageOptions};

/// Returns the text of a file with a service that uses every message of `file`, which is imported
/// as `name`. `number` makes its package unique.
#[must_use]
pub fn for_file(name: &str, file: &FileDescriptorProto, number: usize) -> String {
    let mut messages = Vec::new();
    let scope = if file.package().is_empty() { String::new() } else { format!(".{}", file.package()) };
    file.message_type.iter().for_each(|message| names(message, &scope, &mut messages));
    let mut text = format!("syntax = \"proto3\";\n\npackage corpus.s{number};\n\nimport \"{name}\";\n");
    text += "import \"options.proto\";\n\nservice Corpus {\n";
    let kinds = ["", "type: AFFINITY", "type: MULTI", "stream: true", "subscription: true", "topics: true"];
    for (index, message) in messages.iter().enumerate() {
        let other = &messages[messages.len() - 1 - index];
        let options = kinds[index % kinds.len()];
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "  rpc R{index}({message}) returns ({other}) {{ option (psrpc.options) = {{ {options} }}; }}"
        );
    }
    text + "}\n"
}

/// Collects the names of a message and its nested messages, each with a leading dot.
fn names(message: &DescriptorProto, scope: &str, into: &mut Vec<String>) {
    if message.options.as_ref().is_some_and(MessageOptions::map_entry) {
        return;
    }
    let name = format!("{scope}.{}", message.name());
    message.nested_type.iter().for_each(|nested| names(nested, &name, into));
    into.push(name);
}

/// Parses the file at `path`, imported as `name`. Returns `None` if it does not parse.
#[must_use]
pub fn parse(name: &str, path: &Path) -> Option<FileDescriptorProto> {
    let source = std::fs::read_to_string(path).ok()?;
    let file = protox::file::File::from_source(name, source.trim_start_matches('\u{FEFF}')).ok()?;
    Some(file.file_descriptor_proto().clone())
}
