//! The services as read from the .proto files, validated, with their Rust names.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use heck::{ToShoutySnakeCase, ToSnakeCase, ToUpperCamelCase};
use prost_reflect::{DescriptorPool, FileDescriptor, MethodDescriptor, ServiceDescriptor};
use prost_types::FileDescriptorSet;
use psrpc_proto::{MethodProperties, wire_name};

use crate::options::{Options, flag};
use crate::{Error, Position, shared_queue};

/// All services, by their full protobuf names.
pub(crate) type Services = BTreeMap<String, Service>;

/// A service.
#[derive(Debug)]
pub(crate) struct Service {
    /// The name of the Rust trait.
    pub(crate) name: String,
    /// The name of the constant that holds the service's description.
    pub(crate) constant: String,
    /// The name on the wire.
    pub(crate) wire: String,
    pub(crate) methods: Vec<Method>,
}

/// The kind of an rpc.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One server responds.
    Unary,
    /// Every server responds.
    Multi,
    /// Clients open streams.
    Stream,
    /// Clients subscribe to updates that servers publish.
    Subscription,
}

/// An rpc.
#[derive(Debug)]
pub(crate) struct Method {
    pub(crate) kind: Kind,
    /// The name of its Rust methods, without `r#`.
    pub(crate) name: String,
    /// The name on the wire.
    pub(crate) wire: String,
    /// True if the rpc or its service is deprecated.
    pub(crate) deprecated: bool,
    pub(crate) properties: MethodProperties,
    /// The full protobuf names of its messages.
    pub(crate) request: String,
    pub(crate) response: String,
    /// The parameters of its topic; none if it has no topics.
    pub(crate) topic: Vec<TopicParameter>,
    /// The group that it is registered with, as spelled in the .proto.
    pub(crate) group: Option<String>,
}

/// A parameter of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TopicParameter {
    /// The name of the Rust parameter, without `r#`.
    pub(crate) name: String,
    /// The name of the type parameter, for typed topics.
    pub(crate) typed: Option<String>,
}

impl Service {
    /// Returns the type parameters of the client and the server: those of all typed topics, in the
    /// order of the file.
    pub(crate) fn type_parameters(&self) -> Vec<&str> {
        let mut names = Vec::new();
        for name in
            self.methods.iter().flat_map(|method| &method.topic).filter_map(|topic| topic.typed.as_deref())
        {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }

    /// Returns the groups by their Rust names, each with its methods in order. Subscriptions are
    /// left out, since servers do not register for them.
    pub(crate) fn groups(&self) -> BTreeMap<String, Vec<(usize, &Method)>> {
        let mut groups: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (index, method) in self.methods.iter().enumerate().filter(|(_, method)| method.is_served()) {
            if let Some(group) = &method.group {
                groups.entry(group.to_snake_case()).or_default().push((index, method));
            }
        }
        groups
    }
}

impl Method {
    /// Returns `true` if servers bid for calls with their affinity.
    pub(crate) fn asks_for_affinity(&self) -> bool {
        self.is_served() && self.properties.affinity() && self.properties.require_claim
    }

    /// Returns `true` if servers have a handler for the rpc.
    pub(crate) fn is_served(&self) -> bool {
        self.kind != Kind::Subscription
    }

    /// Returns the name of the client's method, without `r#`.
    pub(crate) fn client_function(&self) -> String {
        match self.kind {
            Kind::Subscription => format!("subscribe_{}", self.name),
            _ => self.name.clone(),
        }
    }
}

/// A problem that does not prevent code generation.
#[derive(Debug)]
pub(crate) struct Warning {
    pub(crate) position: Position,
    pub(crate) text: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.position, self.text)
    }
}

/// Reads the services of `files`. `renames` maps full protobuf names of rpcs to Rust names.
pub(crate) fn services(
    pool: &DescriptorPool,
    files: &FileDescriptorSet,
    renames: &BTreeMap<String, String>,
) -> Result<(Services, Vec<Warning>), Error> {
    let with_services = files.file.iter().filter(|file| !file.service.is_empty());
    let with_services = with_services.filter_map(|file| pool.get_file_by_name(file.name()));
    let descriptors: Vec<_> = with_services.flat_map(|file| file.services().collect::<Vec<_>>()).collect();
    let mut services = Services::new();
    let mut renamed = BTreeSet::new();
    let mut warnings = Vec::new();
    for descriptor in &descriptors {
        let service = service(descriptor, renames, &mut renamed)?;
        check_types(descriptor, &service, &descriptors)?;
        warnings.extend(descriptor.methods().filter_map(|rpc| names_without_topics(&rpc)));
        warnings.extend(shared_queue::warning(descriptor, &service));
        services.insert(descriptor.full_name().to_owned(), service);
    }
    match renames.keys().find(|rpc| !renamed.contains(*rpc)) {
        Some(unknown) => Err(Error::NoSuchMethod(unknown.clone())),
        None => Ok((services, warnings)),
    }
}

fn names_without_topics(rpc: &MethodDescriptor) -> Option<Warning> {
    let options = Options::of(rpc);
    let text = format!(
        "rpc {}: `topic_params.names` is ignored because the rpc has no topics; set `topics: true`",
        rpc.name()
    );
    let ignored = !options.topics && !options.names.is_empty();
    ignored.then(|| Warning { position: position_of_method(rpc), text })
}

fn service(
    descriptor: &ServiceDescriptor,
    renames: &BTreeMap<String, String>,
    renamed: &mut BTreeSet<String>,
) -> Result<Service, Error> {
    let mut methods = Vec::new();
    for rpc in descriptor.methods() {
        let rename = renames.get(rpc.full_name());
        renamed.extend(rename.map(|_| rpc.full_name().to_owned()));
        methods.push(method(&rpc, rename)?);
    }
    let name = descriptor.name().to_upper_camel_case();
    let service = Service {
        constant: format!("{}_SERVICE", name.to_shouty_snake_case()),
        wire: wire_name(descriptor.name()),
        name,
        methods,
    };
    check_names(descriptor, &service)?;
    check_groups(descriptor, &service)?;
    Ok(service)
}

fn method(rpc: &MethodDescriptor, rename: Option<&String>) -> Result<Method, Error> {
    let refuse = |problem: String| Err(Error::Service { position: position_of_method(rpc), problem });
    let name = rpc.name();
    if rpc.is_client_streaming() || rpc.is_server_streaming() {
        return refuse(format!(
            "rpc {name}: the keyword `stream` is not supported; remove it, and set \
             `option (psrpc.options).stream = true;` for a two-way stream"
        ));
    }
    let options = Options::of(rpc);
    let properties = MethodProperties::from_options(options.routing);
    let kind = match (options.stream, options.subscription) {
        (true, true) => {
            return refuse(format!(
                "rpc {name} cannot be both a stream and a subscription; remove one of the two options"
            ));
        }
        (true, false) if properties.multi() => {
            return refuse(format!(
                "rpc {name} cannot be both a stream and MULTI, since one server handles a stream; remove one of the two options"
            ));
        }
        (true, false) => Kind::Stream,
        (false, true) => Kind::Subscription,
        (false, false) if properties.multi() => Kind::Multi,
        (false, false) => Kind::Unary,
    };
    let topic = topic(rpc, &options)?;
    let group = options.group.filter(|_| !topic.is_empty());
    let name = rename.cloned().unwrap_or_else(|| match name.to_snake_case() {
        name if name.starts_with(|c: char| c.is_ascii_digit()) => format!("_{name}"),
        name => name,
    });
    let (request, response) = (rpc.input().full_name().to_owned(), rpc.output().full_name().to_owned());
    let wire = wire_name(rpc.name());
    let service = rpc.parent_service();
    let deprecated = [rpc.options(), service.options()].iter().any(|options| flag(options, "deprecated"));
    Ok(Method { kind, name, wire, deprecated, properties, request, response, topic, group })
}

fn topic(rpc: &MethodDescriptor, options: &Options) -> Result<Vec<TopicParameter>, Error> {
    if !options.topics {
        return Ok(Vec::new());
    }
    if options.names.is_empty() {
        return Ok(vec![TopicParameter {
            name: "topic".into(),
            typed: options.typed.then(|| "Topic".into()),
        }]);
    }
    let refuse = |problem: String| Err(Error::Service { position: position_of_method(rpc), problem });
    let mut topic: Vec<TopicParameter> = Vec::new();
    for name in &options.names {
        let parameter = TopicParameter {
            name: parameter_name(name),
            typed: options.typed.then(|| format!("{}Topic", name.to_upper_camel_case())),
        };
        if syn::parse_str::<syn::Ident>(&rust_name(&parameter.name)).is_err() {
            return refuse(format!(
                "rpc {}: the topic parameter {name:?} is not a valid Rust name; rename it",
                rpc.name()
            ));
        }
        if let Some(known) = topic.iter().position(|known| known.name == parameter.name) {
            return refuse(format!(
                "rpc {}: the topic parameters {:?} and {name:?} would both become the Rust parameter `{}`; rename one of them",
                rpc.name(),
                options.names[known],
                parameter.name
            ));
        }
        topic.push(parameter);
    }
    Ok(topic)
}

/// Returns the Rust name of a topic parameter, kept distinct from the function's other parameters.
fn parameter_name(name: &str) -> String {
    match name.to_snake_case() {
        name if name == "request" || name == "update" => format!("{name}_topic"),
        name => name,
    }
}

/// The methods that every client has besides its rpcs, and `clone`, which an rpc named `Clone`
/// would shadow.
const CLIENT_METHODS: [&str; 9] = [
    "new",
    "with_options",
    "with_runtime",
    "with_topic_types",
    "client",
    "within",
    "clone",
    "close",
    "shutdown",
];

/// Checks that no two rpcs share a name, in Rust or on the wire.
fn check_names(descriptor: &ServiceDescriptor, service: &Service) -> Result<(), Error> {
    let mut rpc_by_name: BTreeMap<String, String> = BTreeMap::new();
    for (rpc, method) in descriptor.methods().zip(&service.methods) {
        let refuse = |problem: String| Err(Error::Service { position: position_of_method(&rpc), problem });
        // Other names are derived from it, so it must be plain. syn would also accept `r#fit`, or
        // spaces around the name.
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if !method.name.chars().all(plain) || syn::parse_str::<syn::Ident>(&rust_name(&method.name)).is_err()
        {
            return refuse(format!(
                "rpc {}: `{}` is not a valid name for the Rust function; pass another one to `rename`, of letters, digits \
                 and `_`, without `r#`",
                rpc.name(),
                method.name
            ));
        }
        if CLIENT_METHODS.contains(&method.client_function().as_str()) {
            return refuse(format!(
                "rpc {} would become the Rust function `{}`, which every client already has; give it another name with \
                 `rename`",
                rpc.name(),
                method.name
            ));
        }
        let affinity = method.asks_for_affinity().then(|| format!("{}_affinity", method.name));
        for name in [Some(rust_name(&method.client_function())), affinity].into_iter().flatten() {
            if let Some(other) = rpc_by_name.insert(name.clone(), rpc.name().to_owned()) {
                return refuse(format!(
                    "rpcs {other} and {} would both become the Rust function `{name}`; give one of them another name \
                     with `rename`",
                    rpc.name()
                ));
            }
        }
        let earlier = descriptor.methods().zip(&service.methods).take_while(|(other, _)| other != &rpc);
        if let Some((other, _)) = earlier.into_iter().find(|(_, other)| other.wire == method.wire) {
            return refuse(format!(
                "rpcs {} and {} would both be named {} on the wire; rename one of them in the .proto",
                other.name(),
                rpc.name(),
                method.wire
            ));
        }
    }
    Ok(())
}

/// Checks that each group can be part of a Rust name, and that its methods have the same topic
/// parameters and spell the group in the same way.
fn check_groups(descriptor: &ServiceDescriptor, service: &Service) -> Result<(), Error> {
    let rpcs: Vec<_> = descriptor.methods().collect();
    let spelled = |method: &Method| method.group.clone().unwrap_or_default();
    for (name, methods) in service.groups() {
        let (first, first_method) = methods[0];
        if name.is_empty() || syn::parse_str::<syn::Ident>(&format!("all_{name}_topics")).is_err() {
            let (rpc, group) = (&rpcs[first], spelled(first_method));
            let problem =
                format!("rpc {}: the group {group:?} cannot be part of a Rust name; rename it", rpc.name());
            return Err(Error::Service { position: position_of_method(rpc), problem });
        }
        for (index, method) in methods {
            let refuse =
                |problem: String| Err(Error::Service { position: position_of_method(&rpcs[index]), problem });
            let (one, other) = (rpcs[first].name(), rpcs[index].name());
            let (group, other_group) = (spelled(first_method), spelled(method));
            if group != other_group {
                return refuse(format!(
                    "rpcs {one} and {other} are in the groups {group:?} and {other_group:?}, which would both become `{name}` \
                     in Rust; rename one of them"
                ));
            }
            if method.topic != first_method.topic {
                return refuse(format!(
                    "rpcs {one} and {other} are both in the group {group:?}, but have different topic parameters"
                ));
            }
        }
    }
    Ok(())
}

/// Checks that the service's Rust types have valid names that no message or other service has.
fn check_types(
    descriptor: &ServiceDescriptor,
    service: &Service,
    services: &[ServiceDescriptor],
) -> Result<(), Error> {
    if syn::parse_str::<syn::Ident>(&service.name).is_err() {
        let (position, name) = (position_of_service(descriptor), descriptor.name());
        let problem = format!(
            "service {name}: `{}` is not a valid name for the Rust trait; rename the service",
            service.name
        );
        return Err(Error::Service { position, problem });
    }
    let pool = descriptor.parent_pool();
    let package = descriptor.package_name();
    let name = &service.name;
    let types = [name.clone(), format!("{name}Api"), format!("{name}Client"), format!("{name}Server")];
    let messages = pool.all_messages().filter(|message| message.parent_message().is_none());
    let messages = messages.map(|message| (message.package_name().to_owned(), message.name().to_owned()));
    let enums = pool.all_enums().filter(|item| item.parent_message().is_none());
    let enums = enums.map(|item| (item.package_name().to_owned(), item.name().to_owned()));
    let others = services.iter().filter(|other| *other != descriptor);
    let others = others.map(|other| (other.package_name().to_owned(), other.name().to_owned()));
    for (of, name) in messages.chain(enums).chain(others) {
        if of == package && types.contains(&name.to_upper_camel_case()) {
            let position = position_of_service(descriptor);
            let problem = format!(
                "service {} and {name} would both become the Rust type `{}`; rename one of them, or move the service to a \
                 package of its own",
                descriptor.name(),
                name.to_upper_camel_case()
            );
            return Err(Error::Service { position, problem });
        }
    }
    Ok(())
}

/// Turns a name into an identifier, with `r#` if it is a keyword.
pub(crate) fn rust_name(name: &str) -> String {
    match name {
        // These keywords cannot be raw identifiers.
        "self" | "super" | "crate" | "_" => format!("{name}_"),
        // A keyword since edition 2024.
        "gen" => "r#gen".to_owned(),
        name if syn::parse_str::<syn::Ident>(name).is_ok() => name.to_owned(),
        keyword => format!("r#{keyword}"),
    }
}

fn position_of_method(rpc: &MethodDescriptor) -> Position {
    position(&rpc.parent_file(), rpc.path())
}

pub(crate) fn position_of_service(service: &ServiceDescriptor) -> Position {
    position(&service.parent_file(), service.path())
}

/// Returns the place of a definition, by its path in the file descriptor.
pub(crate) fn position(file: &FileDescriptor, path: &[i32]) -> Position {
    let descriptor = file.file_descriptor_proto();
    let locations = descriptor.source_code_info.iter().flat_map(|info| &info.location);
    let location = locations.into_iter().find(|location| location.path == path);
    let at = location.and_then(|location| match location.span[..] {
        [line, column, ..] => Some((line as u32 + 1, column as u32 + 1)),
        _ => None,
    });
    Position { file: file.name().to_owned(), at }
}
