//! Rejects names that differ in protobuf and become the same Rust name in prost's output. The check
//! runs before code is generated, so that the error can name both places.

use std::collections::{BTreeMap, BTreeSet};

use heck::{ToSnakeCase, ToUpperCamelCase};
use prost_reflect::{
    Cardinality, DescriptorPool, EnumDescriptor, FieldDescriptor, FileDescriptor, Kind, MessageDescriptor,
    OneofDescriptor,
};
use prost_types::FileDescriptorSet;

use crate::model::position;
use crate::prost_config::ProstConfig;
use crate::workarounds::declared;
use crate::{Error, Position};

/// Checks that the names prost generates for `files` are distinct.
pub(crate) fn check(
    pool: &DescriptorPool,
    files: &FileDescriptorSet,
    prost: &ProstConfig,
) -> Result<(), Error> {
    let mut names = Names { prost, owners: BTreeMap::new() };
    let files: Vec<_> = files.file.iter().filter_map(|file| pool.get_file_by_name(file.name())).collect();
    for file in &files {
        let module = module_of_package(file.package_name());
        for message in file.messages() {
            names.message(file, &module, &message)?;
        }
        for item in file.enums() {
            names.enumeration(file, &module, &item)?;
        }
    }
    // Packages come last, so that an error points at the message, which is easier to rename.
    let packages: BTreeSet<_> = files.iter().map(|file| file.package_name().to_owned()).collect();
    for package in packages {
        names.package(&package)?;
    }
    Ok(())
}

/// Returns the path of the module that prost generates for a package.
pub(crate) fn module_of_package(package: &str) -> Vec<String> {
    package.split('.').filter(|part| !part.is_empty()).map(snake).collect()
}

/// A namespace. Names in one namespace must be distinct within their module or type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Space {
    /// Types and modules.
    Type,
    /// The fields of a struct.
    Field,
    /// The functions of a struct.
    Function,
    /// The variants of an enum.
    Variant,
}

/// The definition that a Rust name belongs to.
#[derive(Clone, Debug)]
struct Owner {
    description: String,
    position: Position,
}

type Place = (Vec<String>, Space, String);

struct Names<'a> {
    prost: &'a ProstConfig,
    owners: BTreeMap<Place, Owner>,
}

impl Names<'_> {
    fn reserve(
        &mut self,
        scope: &[String],
        space: Space,
        name: String,
        owner: Owner,
        way_out: &str,
    ) -> Result<(), Error> {
        let place = (scope.to_vec(), space, name);
        let Some(other) = self.owners.get(&place) else {
            self.owners.insert(place, owner);
            return Ok(());
        };
        let space = match space {
            Space::Type => "type or module",
            Space::Field => "field",
            Space::Function => "function",
            Space::Variant => "variant",
        };
        let problem = format!(
            "{} and {} ({}) would both become the Rust {space} `{}`; {way_out}",
            owner.description, other.description, other.position, place.2
        );
        Err(Error::Service { position: owner.position, problem })
    }

    fn message(
        &mut self,
        file: &FileDescriptor,
        module: &[String],
        message: &MessageDescriptor,
    ) -> Result<(), Error> {
        if message.is_map_entry() || self.prost.is_left_out(message.full_name()) {
            return Ok(());
        }
        let place = || position(file, message.path());
        let name = camel(message.name());
        let owner = Owner { description: format!("message {}", message.name()), position: place() };
        self.reserve(module, Space::Type, name.clone(), owner, "rename one of them")?;
        let own = inner(module, &name);
        self.fields(file, &own, message)?;
        let nested: Vec<_> = message.child_messages().filter(|child| !child.is_map_entry()).collect();
        let oneofs: Vec<_> = message.oneofs().filter(|oneof| !oneof.is_synthetic()).collect();
        if nested.is_empty() && oneofs.is_empty() && message.child_enums().len() == 0 {
            return Ok(());
        }
        let name = snake(message.name());
        let description = format!("the types in message {}", message.name());
        if PRIMITIVES.contains(&&name[..]) {
            let problem = format!(
                "{description} would become the Rust module `{name}`, which shadows the type `{name}`; rename the message"
            );
            return Err(Error::Service { position: place(), problem });
        }
        let own = inner(module, &name);
        self.reserve(
            module,
            Space::Type,
            name,
            Owner { description, position: place() },
            "rename one of them",
        )?;
        for child in &nested {
            self.message(file, &own, child)?;
        }
        for child in message.child_enums() {
            self.enumeration(file, &own, &child)?;
        }
        for oneof in &oneofs {
            self.oneof(file, &own, message, oneof)?;
        }
        Ok(())
    }

    /// Reserves the names of a message's fields and of the accessors that prost derives for them.
    fn fields(
        &mut self,
        file: &FileDescriptor,
        own: &[String],
        message: &MessageDescriptor,
    ) -> Result<(), Error> {
        let way_out = "rename one of them";
        for oneof in message.oneofs().filter(|oneof| !oneof.is_synthetic()) {
            let (description, position) = (format!("oneof {}", oneof.name()), position(file, oneof.path()));
            self.reserve(own, Space::Field, snake(oneof.name()), Owner { description, position }, way_out)?;
        }
        for field in message.fields().filter(|field| !is_variant(field)) {
            let owner = Owner {
                description: format!("field {}", field.name()),
                position: position(file, field.path()),
            };
            // prost would derive `get_r#type`, which is not an identifier.
            if is_map_of_enums(&field) && snake(field.name()).starts_with("r#") {
                let problem = format!(
                    "field {}: prost cannot generate a map of enums whose name is a Rust keyword; rename it",
                    field.name()
                );
                return Err(Error::Service { position: owner.position, problem });
            }
            for function in functions(&field) {
                self.reserve(own, Space::Function, function, owner.clone(), way_out)?;
            }
            self.reserve(own, Space::Field, snake(field.name()), owner, way_out)?;
        }
        Ok(())
    }

    fn oneof(
        &mut self,
        file: &FileDescriptor,
        module: &[String],
        message: &MessageDescriptor,
        oneof: &OneofDescriptor,
    ) -> Result<(), Error> {
        let way_out = "rename one of them";
        let mut name = camel(oneof.name());
        let children = message.child_messages().map(|child| camel(child.name()));
        let enums = message.child_enums().map(|child| camel(child.name()));
        if children.chain(enums).any(|child| child == name) {
            name.push_str("OneOf");
        }
        let (description, place) = (format!("oneof {}", oneof.name()), position(file, oneof.path()));
        self.reserve(module, Space::Type, name.clone(), Owner { description, position: place }, way_out)?;
        let own = inner(module, &name);
        for field in oneof.fields() {
            let (description, position) = (format!("field {}", field.name()), position(file, field.path()));
            self.reserve(
                &own,
                Space::Variant,
                camel(field.name()),
                Owner { description, position },
                way_out,
            )?;
        }
        Ok(())
    }

    fn enumeration(
        &mut self,
        file: &FileDescriptor,
        module: &[String],
        item: &EnumDescriptor,
    ) -> Result<(), Error> {
        if self.prost.is_left_out(item.full_name()) {
            return Ok(());
        }
        let name = camel(item.name());
        let (description, place) = (format!("enum {}", item.name()), position(file, item.path()));
        self.reserve(
            module,
            Space::Type,
            name.clone(),
            Owner { description, position: place },
            "rename one of them",
        )?;
        let own = inner(module, &name);
        let mut numbers = BTreeSet::new();
        let mut full: BTreeSet<String> = BTreeSet::new();
        for (index, (value, number)) in declared(item).into_iter().enumerate() {
            // prost generates only the first of several values with the same number.
            if !numbers.insert(number) {
                continue;
            }
            let (whole, stripped) = (camel(&value), strip(&name, &camel(&value)));
            let variant = if self.prost.strip_enum_prefix { stripped } else { whole.clone() };
            let way_out = match full.insert(whole) {
                true => format!(
                    "rename one of them, or keep the prefix `{}` of all enum values with \
                     `config.prost().retain_enum_prefix()`",
                    item.name()
                ),
                false => "rename one of them".to_owned(),
            };
            let path = [item.path(), &[2, i32::try_from(index).unwrap_or(i32::MAX)]].concat();
            let (description, position) = (format!("enum value {value}"), position(file, &path));
            self.reserve(&own, Space::Variant, variant, Owner { description, position }, &way_out)?;
        }
        Ok(())
    }

    /// Checks that no message has the name of a package's module, or of a module above it.
    fn package(&mut self, package: &str) -> Result<(), Error> {
        let path = module_of_package(package);
        for (at, part) in path.iter().enumerate() {
            let place = (path[..at].to_vec(), Space::Type, part.clone());
            if let Some(message) = self.owners.get(&place) {
                let problem = format!(
                    "{} would become the Rust module `{part}`, which package {package} also needs; rename the message or \
                     the package, or generate one of them elsewhere and pass its Rust path to \
                     `config.prost().extern_path(...)`",
                    message.description
                );
                return Err(Error::Service { position: message.position.clone(), problem });
            }
            let holds_code = |(module, ..): &Place| module[..] == path[..at];
            if PRIMITIVES.contains(&&part[..])
                && let Some((_, first)) = self.owners.iter().find(|(place, _)| holds_code(place))
            {
                let problem = format!(
                    "{} would be next to the Rust module `{part}` of package {package}, which shadows the type `{part}`; \
                     rename the package",
                    first.description
                );
                return Err(Error::Service { position: first.position.clone(), problem });
            }
        }
        Ok(())
    }
}

/// The primitive types that generated code names without a path.
const PRIMITIVES: [&str; 9] = ["bool", "f32", "f64", "i32", "i64", "u32", "u64", "u8", "str"];

/// Returns the names of the accessors that prost derives for a field of a struct.
fn functions(field: &FieldDescriptor) -> Vec<String> {
    let name = snake(field.name());
    let plain = name.strip_prefix("r#").unwrap_or(&name).to_owned();
    if is_map_of_enums(field) {
        return vec![format!("get_{plain}"), format!("insert_{plain}")];
    }
    match (field.kind(), field.cardinality()) {
        (Kind::Enum(_), Cardinality::Repeated) => vec![name, format!("push_{plain}")],
        (Kind::Enum(_), _) => vec![name, format!("set_{plain}")],
        (Kind::Message(_), _) => Vec::new(),
        (_, Cardinality::Optional) if field.supports_presence() => vec![name],
        _ => Vec::new(),
    }
}

fn is_map_of_enums(field: &FieldDescriptor) -> bool {
    let kind = field.kind();
    let entry = kind.as_message().filter(|_| field.is_map());
    entry.is_some_and(|entry| matches!(entry.map_entry_value_field().kind(), Kind::Enum(_)))
}

/// Returns `true` if a field becomes a variant of an enum rather than a field of a struct.
fn is_variant(field: &FieldDescriptor) -> bool {
    field.containing_oneof().is_some_and(|oneof| !oneof.is_synthetic())
}

fn inner(module: &[String], name: &str) -> Vec<String> {
    module.iter().cloned().chain([name.to_owned()]).collect()
}

/// Returns the Rust name that prost gives to a type.
pub(crate) fn camel(name: &str) -> String {
    sanitize(name.to_upper_camel_case())
}

/// Returns the Rust name that prost gives to a field or a module.
fn snake(name: &str) -> String {
    sanitize(name.to_snake_case())
}

/// Removes the name of the enum from the name of a value, as prost does.
fn strip(enumeration: &str, value: &str) -> String {
    let rest = value.strip_prefix(enumeration).filter(|rest| rest.starts_with(char::is_uppercase));
    sanitize(rest.unwrap_or(value).to_owned())
}

/// Turns a name into an identifier, with the exceptions that prost makes.
fn sanitize(name: String) -> String {
    match &name[..] {
        "_" | "super" | "self" | "Self" | "extern" | "crate" => format!("{name}_"),
        digit if digit.starts_with(char::is_numeric) => format!("_{name}"),
        // A keyword since edition 2024.
        "gen" => "r#gen".to_owned(),
        plain if syn::parse_str::<syn::Ident>(plain).is_ok() => name,
        _ => format!("r#{name}"),
    }
}
