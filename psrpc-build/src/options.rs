//! Reads `(psrpc.options)` of an rpc.

use prost_reflect::{DynamicMessage, MethodDescriptor, Value};
use psrpc_proto::{Routing, RoutingOptions};

/// The options of an rpc.
#[derive(Debug, Default)]
pub(crate) struct Options {
    pub(crate) subscription: bool,
    pub(crate) stream: bool,
    pub(crate) topics: bool,
    pub(crate) names: Vec<String>,
    pub(crate) group: Option<String>,
    pub(crate) typed: bool,
    pub(crate) routing: RoutingOptions,
}

impl Options {
    pub(crate) fn of(rpc: &MethodDescriptor) -> Self {
        let pool = rpc.parent_pool();
        let extension = pool.all_extensions().find(|extension| extension.full_name() == "psrpc.options");
        let Some(extension) = extension else { return Self::default() };
        let all = rpc.options();
        if !all.has_extension(&extension) {
            return Self::default();
        }
        let Value::Message(options) = all.get_extension(&extension).into_owned() else {
            return Self::default();
        };
        let mut read = Self {
            subscription: flag(&options, "subscription"),
            stream: flag(&options, "stream"),
            topics: flag(&options, "topics"),
            ..Self::default()
        };
        read.routing.routing = match options.get_field_by_name("type").as_deref() {
            Some(Value::EnumNumber(1)) => Routing::Affinity,
            Some(Value::EnumNumber(2)) => Routing::Multi,
            _ => Routing::Queue,
        };
        // The presence of the field counts, not its value: `multi: false` is still MULTI.
        read.routing.deprecated =
            [("multi", Routing::Multi), ("affinity_func", Routing::Affinity), ("queue", Routing::Queue)]
                .into_iter()
                .find(|(name, _)| options.has_field_by_name(name))
                .map(|(_, routing)| routing);
        if let Some(Value::Message(topic)) = options.get_field_by_name("topic_params").as_deref() {
            read.typed = flag(topic, "typed");
            read.routing.single_server = flag(topic, "single_server");
            read.group = text(topic.get_field_by_name("group").as_deref()).filter(|group| !group.is_empty());
            if let Some(Value::List(names)) = topic.get_field_by_name("names").as_deref() {
                read.names = names.iter().filter_map(|name| text(Some(name))).collect();
            }
        }
        read
    }
}

/// Returns `true` if the field `name` is set to true.
pub(crate) fn flag(message: &DynamicMessage, name: &str) -> bool {
    matches!(message.get_field_by_name(name).as_deref(), Some(Value::Bool(true)))
}

fn text(value: Option<&Value>) -> Option<String> {
    match value {
        Some(Value::String(text)) => Some(text.clone()),
        _ => None,
    }
}
