//! Channels of a service, each with three names.

use alloc::string::String;
use alloc::sync::Arc;
use core::fmt::{self, Write};

/// A channel with its three names (PROTOCOL section 2). Cheap to clone.
///
/// Redis and the in-process bus use only the legacy name. NATS uses the server name as the subject,
/// and the local name to route within that subject.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Channel {
    /// The three names, concatenated.
    names: Arc<str>,
    legacy_end: u32,
    server_end: u32,
}

impl Channel {
    /// Returns the channel on which clients publish requests of a method, and servers publish
    /// updates.
    pub fn request<T: AsRef<str>>(service: &str, method: &str, topic: &[T], queue: bool) -> Self {
        Self::of_method(service, method, topic, "REQ", queue)
    }

    /// Returns the channel on which clients publish grants.
    pub fn claim_response<T: AsRef<str>>(service: &str, method: &str, topic: &[T]) -> Self {
        Self::of_method(service, method, topic, "RCLAIM", false)
    }

    /// Returns the channel on which clients publish stream frames.
    pub fn stream_to_server<T: AsRef<str>>(service: &str, method: &str, topic: &[T]) -> Self {
        Self::of_method(service, method, topic, "STR", false)
    }

    /// Returns the channel on which servers publish bids to the client `id`.
    pub fn claim_request(service: &str, id: &str) -> Self {
        Self::of_client(service, id, "CLAIM")
    }

    /// Returns the channel on which servers publish responses to the client `id`.
    pub fn response(service: &str, id: &str) -> Self {
        Self::of_client(service, id, "RES")
    }

    /// Returns the channel on which servers publish stream frames to the client `id`.
    pub fn stream_to_client(service: &str, id: &str) -> Self {
        Self::of_client(service, id, "STR")
    }

    /// Returns the name on Redis and on the in-process bus.
    pub fn legacy(&self) -> &str {
        &self.names[..self.legacy_end as usize]
    }

    /// Returns the NATS subject.
    pub fn server(&self) -> &str {
        &self.names[self.legacy_end as usize..self.server_end as usize]
    }

    /// Returns the name that distinguishes this channel from others on its NATS subject; empty if
    /// the subject has only this channel.
    pub fn local(&self) -> &str {
        &self.names[self.server_end as usize..]
    }

    fn of_method<T: AsRef<str>>(service: &str, method: &str, topic: &[T], kind: &str, queue: bool) -> Self {
        let mut names = String::new();
        // Go writes a separator before a part unless the name is empty or already ends with one.
        // This drops empty parts at the start and in the middle, but leaves a separator before an
        // empty last part.
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

/// Appends a legacy name: its sanitized parts, without the empty ones.
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

/// Appends `part`, with every character other than ASCII letters, digits and underscores replaced
/// by its code point.
fn sanitize(names: &mut String, part: &str) {
    for character in part.chars() {
        match u32::from(character) {
            _ if character.is_ascii_alphanumeric() || character == '_' => names.push(character),
            code @ ..=0xffff => write!(names, "u+{code:04x}").expect("writing to a string cannot fail"),
            code => write!(names, "U+{code:08x}").expect("writing to a string cannot fail"),
        }
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Channel({self})")
    }
}

impl fmt::Display for Channel {
    /// Writes the legacy name, which is unique on any bus.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.legacy())
    }
}
