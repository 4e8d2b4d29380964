//! Channels: the three names of every channel of a service.

use alloc::string::String;
use alloc::sync::Arc;
use core::fmt::{self, Write};

/// A channel, by its three names (PROTOCOL section 2). Cheap to clone.
///
/// A bus uses either the legacy name alone (Redis, in-process), or the server name as the subject
/// and the local name to route within it (NATS).
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Channel {
    /// The three names, one after the other.
    names: Arc<str>,
    legacy_end: u32,
    server_end: u32,
}

impl Channel {
    /// Where a client publishes the requests of a method, and a server the updates of a
    /// subscription.
    pub fn request<T: AsRef<str>>(service: &str, method: &str, topic: &[T], queue: bool) -> Self {
        Self::of_method(service, method, topic, "REQ", queue)
    }

    /// Where a client publishes its grants.
    pub fn claim_response<T: AsRef<str>>(service: &str, method: &str, topic: &[T]) -> Self {
        Self::of_method(service, method, topic, "RCLAIM", false)
    }

    /// Where a client publishes the frames of its streams.
    pub fn stream_to_server<T: AsRef<str>>(service: &str, method: &str, topic: &[T]) -> Self {
        Self::of_method(service, method, topic, "STR", false)
    }

    /// Where servers publish their bids for the requests of the client `id`.
    pub fn claim_request(service: &str, id: &str) -> Self {
        Self::of_client(service, id, "CLAIM")
    }

    /// Where servers publish their responses to the client `id`.
    pub fn response(service: &str, id: &str) -> Self {
        Self::of_client(service, id, "RES")
    }

    /// Where servers publish the frames of the streams of the client `id`.
    pub fn stream_to_client(service: &str, id: &str) -> Self {
        Self::of_client(service, id, "STR")
    }

    /// The name on Redis and in-process.
    pub fn legacy(&self) -> &str {
        &self.names[..self.legacy_end as usize]
    }

    /// The NATS subject.
    pub fn server(&self) -> &str {
        &self.names[self.legacy_end as usize..self.server_end as usize]
    }

    /// What tells this channel from others on its subject; empty where the subject is the channel's
    /// alone.
    pub fn local(&self) -> &str {
        &self.names[self.server_end as usize..]
    }

    fn of_method<T: AsRef<str>>(service: &str, method: &str, topic: &[T], kind: &str, queue: bool) -> Self {
        let mut names = String::new();
        // Go separates the parts of a topic unless what is there ends with a separator already,
        // which drops empty parts in front and in between but leaves the separator before an empty
        // last part.
        let mut topics = String::new();
        for part in topic {
            if !topics.is_empty() && !topics.ends_with('|') {
                topics.push('|');
            }
            sanitize(&mut topics, part.as_ref());
        }
        legacy(&mut names, [service, method], &topics, kind);
        let legacy_end = names.len();
        names.push_str("SRV.");
        names.push_str(service);
        for part in topic.iter().map(AsRef::as_ref).filter(|part| !part.is_empty()) {
            names.push('.');
            sanitize(&mut names, part);
        }
        if queue {
            names.push_str(".Q");
        }
        let server_end = names.len();
        names.push_str(method);
        names.push('.');
        names.push_str(kind);
        Self::new(&names, legacy_end, server_end)
    }

    fn of_client(service: &str, id: &str, kind: &str) -> Self {
        let mut names = String::new();
        legacy(&mut names, [service, id], "", kind);
        let legacy_end = names.len();
        for part in ["CLI.", service, ".", id, ".", kind] {
            names.push_str(part);
        }
        let server_end = names.len();
        Self::new(&names, legacy_end, server_end)
    }

    fn new(names: &str, legacy_end: usize, server_end: usize) -> Self {
        let offset = |end| u32::try_from(end).expect("names are far shorter than 4 GiB");
        Self { names: names.into(), legacy_end: offset(legacy_end), server_end: offset(server_end) }
    }
}

/// Appends a legacy name: its parts, sanitized, without the empty ones.
fn legacy(names: &mut String, parts: [&str; 2], topics: &str, kind: &str) {
    for part in parts.into_iter().filter(|part| !part.is_empty()) {
        sanitize(names, part);
        names.push('|');
    }
    if !topics.is_empty() {
        names.push_str(topics);
        names.push('|');
    }
    names.push_str(kind);
}

/// Appends `part` with every character but letters, digits and underscores written as its code
/// point.
fn sanitize(names: &mut String, part: &str) {
    for character in part.chars() {
        match u32::from(character) {
            _ if character.is_ascii_alphanumeric() || character == '_' => names.push(character),
            code @ ..=0xffff => write!(names, "u+{code:04x}").expect("a string takes all"),
            code => write!(names, "U+{code:08x}").expect("a string takes all"),
        }
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Channel({self})")
    }
}

impl fmt::Display for Channel {
    /// The legacy name, which tells the channel on any bus.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.legacy())
    }
}
