//! Rewrites definitions that prost does not support into equivalent ones that it does.

use std::collections::BTreeSet;

use prost_reflect::{Cardinality, DescriptorPool, EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor};
use prost_types::field_descriptor_proto::Type;
use prost_types::{DescriptorProto, FileDescriptorSet};

/// Replaces enum defaults that name an alias by the first value with the same number, since prost
/// has no variants for aliases.
pub(crate) fn aliases(pool: &DescriptorPool, files: &mut FileDescriptorSet) {
    files.file.iter_mut().flat_map(|file| &mut file.message_type).for_each(|message| {
        aliases_of(pool, message);
    });
}

fn aliases_of(pool: &DescriptorPool, message: &mut DescriptorProto) {
    for field in message.field.iter_mut().filter(|field| field.r#type() == Type::Enum) {
        let Some(default) = &field.default_value else { continue };
        let name = field.type_name().trim_start_matches('.');
        if let Some(first) = pool.get_enum_by_name(name).and_then(|item| first_of_number(&item, default)) {
            field.default_value = Some(first);
        }
    }
    message.nested_type.iter_mut().for_each(|nested| aliases_of(pool, nested));
}

fn first_of_number(item: &EnumDescriptor, value: &str) -> Option<String> {
    let number = item.get_value_by_name(value)?.number();
    let first = declared(item).into_iter().find(|(_, other)| *other == number);
    first.map(|(name, _)| name)
}

/// Returns the values of an enum in the order of the file.
pub(crate) fn declared(item: &EnumDescriptor) -> Vec<(String, i32)> {
    let values = &item.enum_descriptor_proto().value;
    values.iter().map(|value| (value.name().to_owned(), value.number())).collect()
}

/// Returns the protobuf paths of groups that contain themselves. prost boxes recursive messages,
/// but not groups.
pub(crate) fn recursive_groups(pool: &DescriptorPool) -> Vec<String> {
    let fields = pool.all_messages().flat_map(|message| message.fields().collect::<Vec<_>>());
    let recursive = fields.filter(|field| field.is_group() && is_recursive(field));
    recursive.map(|field| path(&field)).collect()
}

fn is_recursive(field: &FieldDescriptor) -> bool {
    let mut reached = BTreeSet::new();
    let mut open = inline(field).into_iter().collect::<Vec<_>>();
    while let Some(message) = open.pop() {
        if message == *field.parent_message() {
            return true;
        }
        if reached.insert(message.full_name().to_owned()) {
            open.extend(message.fields().filter_map(|field| inline(&field)));
        }
    }
    false
}

/// Returns the message that a field holds directly, without a vector.
fn inline(field: &FieldDescriptor) -> Option<MessageDescriptor> {
    match field.kind() {
        Kind::Message(message) if field.cardinality() != Cardinality::Repeated => Some(message),
        _ => None,
    }
}

/// Returns the path by which prost's configuration refers to a field.
fn path(field: &FieldDescriptor) -> String {
    let message = field.parent_message().full_name();
    match field.containing_oneof().filter(|oneof| !oneof.is_synthetic()) {
        Some(oneof) => format!(".{message}.{}.{}", oneof.name(), field.name()),
        None => format!(".{message}.{}", field.name()),
    }
}
