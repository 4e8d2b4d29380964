//! Collisions: names that differ in protobuf, and that prost makes one Rust name of. They are found
//! before any code is generated, so that the error names both places.

use std::collections::{BTreeMap, BTreeSet};

use heck::{ToSnakeCase, ToUpperCamelCase};
use prost_reflect::{
    Cardinality, DescriptorPool, EnumDescriptor, FieldDescriptor, FileDescriptor, Kind, MessageDescriptor,
    OneofDescriptor,
};
use prost_types::FileDescriptorSet;

use crate::mend::declared;
use crate::model::position;
use crate::prost_config::ProstConfig;
use crate::{Error, Position};

/// Checks that what prost generates for `files` has names that differ.
pub(crate) fn check(
    pool: &DescriptorPool,
    files: &FileDescriptorSet,
    prost: &ProstConfig,
) -> Result<(), Error> {
    let mut names = Names { prost, taken: BTreeMap::new() };
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
    // Modules of packages come last, so that an error is at the message, which can be renamed.
    let packages: BTreeSet<_> = files.iter().map(|file| file.package_name().to_owned()).collect();
    for package in packages {
        names.package(&package)?;
    }
    Ok(())
}

/// The modules that prost puts the code of a package in.
pub(crate) fn module_of_package(package: &str) -> Vec<String> {
    package.split('.').filter(|part| !part.is_empty()).map(snake).collect()
}

/// What a Rust name is of. Those of one kind must differ within their module or type.
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

/// What a name is taken by.
#[derive(Clone, Debug)]
struct Taken {
    what: String,
    position: Position,
}

type Place = (Vec<String>, Space, String);

struct Names<'a> {
    prost: &'a ProstConfig,
    taken: BTreeMap<Place, Taken>,
}

impl Names<'_> {
    fn take(
        &mut self,
        scope: &[String],
        space: Space,
        name: String,
        taken: Taken,
        way_out: &str,
    ) -> Result<(), Error> {
        let place = (scope.to_vec(), space, name);
        let Some(other) = self.taken.get(&place) else {
            self.taken.insert(place, taken);
            return Ok(());
        };
        let space = match space {
            Space::Type => "type or module",
            Space::Field => "field",
            Space::Function => "function",
            Space::Variant => "variant",
        };
        let problem = format!(
            "{} and {} ({}) would both have the Rust {space} `{}`; {way_out}",
            taken.what, other.what, other.position, place.2
        );
        Err(Error::Service { position: taken.position, problem })
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
        let taken = Taken { what: format!("message {}", message.name()), position: place() };
        self.take(module, Space::Type, name.clone(), taken, "rename one of them")?;
        let own = inner(module, &name);
        self.fields(file, &own, message)?;
        let nested: Vec<_> = message.child_messages().filter(|child| !child.is_map_entry()).collect();
        let oneofs: Vec<_> = message.oneofs().filter(|oneof| !oneof.is_synthetic()).collect();
        if nested.is_empty() && oneofs.is_empty() && message.child_enums().len() == 0 {
            return Ok(());
        }
        let name = snake(message.name());
        let what = format!("the types in message {}", message.name());
        if PRIMITIVES.contains(&&name[..]) {
            let problem = format!(
                "{what} would be in the Rust module `{name}`, which hides the type `{name}`; rename the message"
            );
            return Err(Error::Service { position: place(), problem });
        }
        let own = inner(module, &name);
        self.take(module, Space::Type, name, Taken { what, position: place() }, "rename one of them")?;
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

    /// The fields of a message, and the functions that prost derives for them.
    fn fields(
        &mut self,
        file: &FileDescriptor,
        own: &[String],
        message: &MessageDescriptor,
    ) -> Result<(), Error> {
        let way_out = "rename one of them";
        for oneof in message.oneofs().filter(|oneof| !oneof.is_synthetic()) {
            let (what, position) = (format!("oneof {}", oneof.name()), position(file, oneof.path()));
            self.take(own, Space::Field, snake(oneof.name()), Taken { what, position }, way_out)?;
        }
        for field in message.fields().filter(|field| !is_variant(field)) {
            let taken =
                Taken { what: format!("field {}", field.name()), position: position(file, field.path()) };
            // prost derives `get_r#type` of it, which is no name.
            if is_map_of_enums(&field) && snake(field.name()).starts_with("r#") {
                let problem = format!(
                    "field {} is a map of enums whose name is a keyword of Rust, for which prost derives no code; rename it",
                    field.name()
                );
                return Err(Error::Service { position: taken.position, problem });
            }
            for function in functions(&field) {
                self.take(own, Space::Function, function, taken.clone(), way_out)?;
            }
            self.take(own, Space::Field, snake(field.name()), taken, way_out)?;
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
        let (what, place) = (format!("oneof {}", oneof.name()), position(file, oneof.path()));
        self.take(module, Space::Type, name.clone(), Taken { what, position: place }, way_out)?;
        let own = inner(module, &name);
        for field in oneof.fields() {
            let (what, position) = (format!("field {}", field.name()), position(file, field.path()));
            self.take(&own, Space::Variant, camel(field.name()), Taken { what, position }, way_out)?;
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
        let (what, place) = (format!("enum {}", item.name()), position(file, item.path()));
        self.take(module, Space::Type, name.clone(), Taken { what, position: place }, "rename one of them")?;
        let own = inner(module, &name);
        let mut numbers = BTreeSet::new();
        let mut full: BTreeSet<String> = BTreeSet::new();
        for (index, (value, number)) in declared(item).into_iter().enumerate() {
            // Of values with one number prost takes the first.
            if !numbers.insert(number) {
                continue;
            }
            let (whole, stripped) = (camel(&value), strip(&name, &camel(&value)));
            let variant = if self.prost.strip_enum_prefix { stripped } else { whole.clone() };
            let way_out = match full.insert(whole) {
                true => format!(
                    "rename one of them, or keep the name of the enum in all of its values with \
                     `config.prost().retain_enum_prefix()`, where `{}` is cut off now",
                    item.name()
                ),
                false => "rename one of them".to_owned(),
            };
            let path = [item.path(), &[2, i32::try_from(index).unwrap_or(i32::MAX)]].concat();
            let (what, position) = (format!("enum value {value}"), position(file, &path));
            self.take(&own, Space::Variant, variant, Taken { what, position }, &way_out)?;
        }
        Ok(())
    }

    /// Checks that the module of a package, and those that it is in, are of no message.
    fn package(&mut self, package: &str) -> Result<(), Error> {
        let path = module_of_package(package);
        for (at, part) in path.iter().enumerate() {
            let place = (path[..at].to_vec(), Space::Type, part.clone());
            if let Some(message) = self.taken.get(&place) {
                let problem = format!(
                    "{} would be in the Rust module `{part}`, which is that of package {package}; rename the message \
                     or the package, or generate one of them elsewhere and name its place with \
                     `config.prost().extern_path(...)`",
                    message.what
                );
                return Err(Error::Service { position: message.position.clone(), problem });
            }
            let holds_code = |(module, ..): &Place| module[..] == path[..at];
            if PRIMITIVES.contains(&&part[..])
                && let Some((_, first)) = self.taken.iter().find(|(place, _)| holds_code(place))
            {
                let problem = format!(
                    "{} is in a package above {package}, whose Rust module `{part}` hides the type `{part}`; rename \
                     the package",
                    first.what
                );
                return Err(Error::Service { position: first.position.clone(), problem });
            }
        }
        Ok(())
    }
}

/// The types that generated code names without a path.
const PRIMITIVES: [&str; 9] = ["bool", "f32", "f64", "i32", "i64", "u32", "u64", "u8", "str"];

/// The functions that prost derives for a field of a struct.
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

/// Whether a field is a variant of a oneof, and none of the struct.
fn is_variant(field: &FieldDescriptor) -> bool {
    field.containing_oneof().is_some_and(|oneof| !oneof.is_synthetic())
}

fn inner(module: &[String], name: &str) -> Vec<String> {
    module.iter().cloned().chain([name.to_owned()]).collect()
}

/// A type's name as prost makes it.
pub(crate) fn camel(name: &str) -> String {
    sanitize(name.to_upper_camel_case())
}

/// A field's or a module's name as prost makes it.
fn snake(name: &str) -> String {
    sanitize(name.to_snake_case())
}

/// An enum value's name without that of its enum.
fn strip(enumeration: &str, value: &str) -> String {
    let rest = value.strip_prefix(enumeration).filter(|rest| rest.starts_with(char::is_uppercase));
    sanitize(rest.unwrap_or(value).to_owned())
}

/// A name as an identifier, with prost's exceptions.
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
