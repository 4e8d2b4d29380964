//! Checks that prost-types provides the `google.protobuf` types in use; it lacks a few.

use prost_reflect::{DescriptorPool, FieldDescriptor, FileDescriptor, Kind, MessageDescriptor};
use prost_types::FileDescriptorSet;

use crate::Error;
use crate::model::position;
use crate::prost_config::ProstConfig;

/// The types that prost-types provides or that prost maps to a Rust type, without
/// `google.protobuf.`.
const KNOWN: &[&str] = &[
    "Any",
    "Api",
    "BoolValue",
    "BytesValue",
    "DescriptorProto",
    "DescriptorProto.ExtensionRange",
    "DescriptorProto.ReservedRange",
    "DoubleValue",
    "Duration",
    "Empty",
    "Enum",
    "EnumDescriptorProto",
    "EnumDescriptorProto.EnumReservedRange",
    "EnumOptions",
    "EnumValue",
    "EnumValueDescriptorProto",
    "EnumValueOptions",
    "ExtensionRangeOptions",
    "Field",
    "Field.Cardinality",
    "Field.Kind",
    "FieldDescriptorProto",
    "FieldDescriptorProto.Label",
    "FieldDescriptorProto.Type",
    "FieldMask",
    "FieldOptions",
    "FieldOptions.CType",
    "FieldOptions.JSType",
    "FileDescriptorProto",
    "FileDescriptorSet",
    "FileOptions",
    "FileOptions.OptimizeMode",
    "FloatValue",
    "GeneratedCodeInfo",
    "GeneratedCodeInfo.Annotation",
    "Int32Value",
    "Int64Value",
    "ListValue",
    "MessageOptions",
    "Method",
    "MethodDescriptorProto",
    "MethodOptions",
    "MethodOptions.IdempotencyLevel",
    "Mixin",
    "NullValue",
    "OneofDescriptorProto",
    "OneofOptions",
    "Option",
    "ServiceDescriptorProto",
    "ServiceOptions",
    "SourceCodeInfo",
    "SourceCodeInfo.Location",
    "SourceContext",
    "StringValue",
    "Struct",
    "Syntax",
    "Timestamp",
    "Type",
    "UInt32Value",
    "UInt64Value",
    "UninterpretedOption",
    "UninterpretedOption.NamePart",
    "Value",
    "compiler.CodeGeneratorRequest",
    "compiler.CodeGeneratorResponse",
    "compiler.CodeGeneratorResponse.Feature",
    "compiler.CodeGeneratorResponse.File",
    "compiler.Version",
];

/// Checks that each `google.protobuf` type in a field or an rpc of `files` exists in Rust.
pub(crate) fn check(
    pool: &DescriptorPool,
    files: &FileDescriptorSet,
    prost: &ProstConfig,
) -> Result<(), Error> {
    if !prost.prost_types {
        return Ok(());
    }
    let checked = files.file.iter().filter(|file| !is_google(file.package()));
    for file in checked {
        let Some(descriptor) = pool.get_file_by_name(file.name()) else { continue };
        descriptor.messages().try_for_each(|message| check_message(&descriptor, &message, prost))?;
        // The services of `file` have been removed if no code is generated for them.
        for service in descriptor.services().take(file.service.len()) {
            for rpc in service.methods() {
                for message in [rpc.input(), rpc.output()] {
                    check_name(&descriptor, rpc.path(), message.full_name(), prost)?;
                }
            }
        }
    }
    Ok(())
}

/// Returns `true` if `package` is `google.protobuf` or a package within it.
pub(crate) fn is_google(package: &str) -> bool {
    package.strip_prefix("google.protobuf").is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

fn check_message(
    file: &FileDescriptor,
    message: &MessageDescriptor,
    prost: &ProstConfig,
) -> Result<(), Error> {
    if prost.is_left_out(message.full_name()) {
        return Ok(());
    }
    for field in message.fields() {
        if let Some(name) = type_name(&field) {
            check_name(file, field.path(), &name, prost)?;
        }
    }
    let children = message.child_messages().filter(|child| !child.is_map_entry());
    children.into_iter().try_for_each(|child| check_message(file, &child, prost))
}

/// Returns the full name of the type of a field; for a map, of its values.
fn type_name(field: &FieldDescriptor) -> Option<String> {
    match field.kind() {
        Kind::Message(entry) if field.is_map() => type_name(&entry.map_entry_value_field()),
        Kind::Message(message) => Some(message.full_name().to_owned()),
        Kind::Enum(item) => Some(item.full_name().to_owned()),
        _ => None,
    }
}

fn check_name(file: &FileDescriptor, path: &[i32], name: &str, prost: &ProstConfig) -> Result<(), Error> {
    let Some(short) = name.strip_prefix("google.protobuf.") else { return Ok(()) };
    if KNOWN.contains(&short) || prost.is_external(name) {
        return Ok(());
    }
    let problem = format!(
        "the crate prost-types does not provide {name}; generate the type elsewhere and pass its Rust path to \
         `config.prost().extern_path(\".{name}\", ...)`"
    );
    Err(Error::Service { position: position(file, path), problem })
}
