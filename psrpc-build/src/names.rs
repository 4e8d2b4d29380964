//! Rejects names that consist of underscores only. prost drops underscores, so such a name would be
//! empty in Rust.

use prost_reflect::{DescriptorPool, EnumDescriptor, FileDescriptor, MessageDescriptor};
use prost_types::FileDescriptorSet;

use crate::Error;
use crate::model::position;

/// The path of the package name in a file descriptor.
const PACKAGE: &[i32] = &[2];

/// Checks the names that prost converts. The names of services and rpcs are checked elsewhere, in
/// `model`.
pub(crate) fn check(pool: &DescriptorPool, files: &FileDescriptorSet) -> Result<(), Error> {
    for file in files.file.iter().filter_map(|file| pool.get_file_by_name(file.name())) {
        for part in file.package_name().split('.').filter(|part| !part.is_empty()) {
            check_name(&file, PACKAGE, "part of a package", part)?;
        }
        file.messages().try_for_each(|message| check_message(&file, &message))?;
        file.enums().try_for_each(|item| check_enum(&file, &item))?;
    }
    Ok(())
}

fn check_message(file: &FileDescriptor, message: &MessageDescriptor) -> Result<(), Error> {
    check_name(file, message.path(), "message", message.name())?;
    for field in message.fields() {
        check_name(file, field.path(), "field", field.name())?;
    }
    for oneof in message.oneofs() {
        check_name(file, oneof.path(), "oneof", oneof.name())?;
    }
    message.child_messages().try_for_each(|child| check_message(file, &child))?;
    message.child_enums().try_for_each(|child| check_enum(file, &child))
}

fn check_enum(file: &FileDescriptor, item: &EnumDescriptor) -> Result<(), Error> {
    check_name(file, item.path(), "enum", item.name())?;
    item.values().try_for_each(|value| check_name(file, value.path(), "enum value", value.name()))
}

fn check_name(file: &FileDescriptor, path: &[i32], item: &str, name: &str) -> Result<(), Error> {
    if name.bytes().any(|byte| byte != b'_') {
        return Ok(());
    }
    let problem =
        format!("the {item} `{name}` would have no name in Rust, since underscores are dropped; rename it");
    Err(Error::Service { position: position(file, path), problem })
}
