//! What fuzzing gets hold of: a subject, as what a server sends reaches it.

use bytes::Bytes;
use psrpc::SubscriptionKind;
use psrpc::bus::{Sink, Wakes};
use psrpc::proto::FrameLimits;

use crate::subject;

/// A subject with its listeners, all of which are live.
pub struct Subject(subject::Subject);

impl Subject {
    /// A subject of that name, if one can have it.
    pub fn new(name: &str, kind: SubscriptionKind) -> Option<Self> {
        subject::check(name).ok()?;
        let subject = subject::Subject::new(name, kind);
        subject.live(false);
        Some(Self(subject))
    }

    /// Adds a listener, and gives what to remove it by.
    pub fn add(&self, channel: &str, sink: Sink) -> usize {
        self.0.add(channel, sink, true, &mut Wakes::new())
    }

    /// Removes a listener, as if the server had answered.
    pub fn remove(&self, channel: &str, key: usize) {
        self.0.leave(channel, key);
        self.0.begin();
        self.0.gone();
    }

    /// Takes what a server sends.
    pub fn receive(&self, payload: Bytes, limits: &FrameLimits) {
        self.0.route(payload, limits);
    }
}

impl std::fmt::Debug for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subject").field("name", &self.0.name).finish_non_exhaustive()
    }
}
