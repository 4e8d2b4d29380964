//! Services whose updates and requests share a queue group on NATS.
//!
//! The subject of a queue-routed method consists of its service and topic, without the name of the
//! method (PROTOCOL section 2), and every queue subscription joins the queue group `bus`. Clients
//! that subscribe to queue-routed updates are thus in one group with the servers of queue-routed
//! calls.

use std::iter::zip;

use prost_reflect::ServiceDescriptor;

use crate::model::{Kind, Method, Service, Warning, position_of_service};

impl Service {
    /// Returns `true` if `updates` is a queue-routed subscription that shares a queue group on NATS
    /// with a call of this service.
    pub(crate) fn shares_queue(&self, updates: &Method) -> bool {
        is_queue_routed(updates, Kind::Subscription)
            && self.methods.iter().any(|call| {
                is_queue_routed(call, Kind::Unary) && updates.topic.is_empty() == call.topic.is_empty()
            })
    }
}

/// Returns `true` if the bus hands each message of `method` to one subscriber. Not used for
/// streams, whose messages are never queue-routed.
fn is_queue_routed(method: &Method, kind: Kind) -> bool {
    method.kind == kind && method.properties.queue()
}

/// The subscriptions and calls that share a queue group, by their names in the .proto.
struct Shared<'a> {
    updates: Vec<&'a str>,
    calls: Vec<&'a str>,
}

/// Returns the warning for a service whose updates and requests share a queue group.
pub(crate) fn warning(descriptor: &ServiceDescriptor, service: &Service) -> Option<Warning> {
    let rpcs: Vec<_> = descriptor.methods().collect();
    let named = |kind: Kind, topics: bool| -> Vec<&str> {
        let methods = zip(&rpcs, &service.methods)
            .filter(|(_, method)| is_queue_routed(method, kind) && method.topic.is_empty() != topics);
        methods.map(|(rpc, _)| rpc.name()).collect()
    };
    let shared = |topics| {
        let shared = Shared { updates: named(Kind::Subscription, topics), calls: named(Kind::Unary, topics) };
        (!shared.updates.is_empty() && !shared.calls.is_empty()).then_some(shared)
    };
    let (without_topics, with_topics) = (shared(false), shared(true));

    let mut groups = Vec::new();
    let mut ways_out = Vec::new();
    if let Some(Shared { updates, calls }) = &without_topics {
        let (updates, calls) = (list(updates), list(calls));
        groups.push(format!(
            "clients that subscribe to {updates} and servers of {calls} share a subject and a queue group"
        ));
        // If calls have topics too, updates with topics would share a queue with those.
        if named(Kind::Unary, true).is_empty() {
            ways_out.push(format!("give {updates} topics"));
        }
    }
    if let Some(Shared { updates, calls }) = &with_topics {
        let (updates, calls) = (list(updates), list(calls));
        groups.push(format!(
            "clients that subscribe to {updates} and servers of {calls} share a subject and a queue group for \
             each topic that both use"
        ));
        ways_out.push(format!("publish {updates} on topics that no server of {calls} registers"));
    }
    if groups.is_empty() {
        return None;
    }
    let updates = || zip(&rpcs, &service.methods).filter(|(_, method)| service.shares_queue(method));
    let names = list(&updates().map(|(rpc, _)| rpc.name()).collect::<Vec<_>>());
    let (own, it) = match updates().count() {
        1 => ("a service of its own", "it"),
        _ => ("a service of their own", "them"),
    };
    // The bus knows methods by their names on the wire.
    let options: Vec<_> = updates()
        .map(|(_, method)| format!("`NatsOptions::separate_updates({:?}, {:?})`", service.wire, method.wire))
        .collect();
    let text = format!(
        "service {service}: on NATS, {groups}. NATS hands each update and each request to one member of the \
         group, so about half of them go to a member that cannot use them, and are lost. Put {names} into {own}; {ways_out}make {it} \
         `type: MULTI`, so that every subscriber gets each update; or, if no Go client subscribes to {it}, set \
         {options} on every bus",
        service = descriptor.name(),
        groups = groups.join(", and "),
        ways_out = ways_out.iter().map(|way| format!("{way}; ")).collect::<String>(),
        options = list(&options.iter().map(String::as_str).collect::<Vec<_>>()),
    );
    Some(Warning { position: position_of_service(descriptor), text })
}

/// Joins names as `a`, `a and b` or `a, b and c`.
fn list(names: &[&str]) -> String {
    match names {
        [rest @ .., last] if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        names => names.concat(),
    }
}
