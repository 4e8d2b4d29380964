//! Entry points for fuzzing: subscriptions that receive messages from the fuzz target.

use std::sync::Arc;

use bytes::Bytes;
use psrpc::SubscriptionKind;
use psrpc::bus::{Monitor, Sink, WakeList};
use psrpc::proto::{Channel, FrameLimits};

use crate::options::NatsOptions;
use crate::subject;
use crate::subscribe::{ListenerId, Subscriptions};

/// Subscriptions that are live immediately. Subjects are numbered from 1.
pub struct Subjects(Arc<Subscriptions>);

/// Identifies a listener.
#[derive(Debug)]
pub struct SubjectListener(ListenerId);

impl Subjects {
    /// Returns subscriptions without any listener.
    pub fn new(limits: FrameLimits) -> Self {
        let options = NatsOptions::new().frame_limits(limits);
        let subscriptions = Subscriptions::new(String::new(), &options, Monitor::new(), Arc::default());
        subscriptions.connected();
        Self(Arc::new(subscriptions))
    }

    /// Adds a listener. Returns `None` if the channel name is not a valid subject.
    pub fn add(&self, channel: &Channel, kind: SubscriptionKind, sink: Sink) -> Option<SubjectListener> {
        subject::check(channel.server()).ok()?;
        let id = self.0.subscribe(channel, kind, sink, &mut WakeList::new())?;
        self.round();
        Some(SubjectListener(id))
    }

    /// Removes a listener.
    pub fn remove(&self, listener: SubjectListener) {
        self.0.unsubscribe(listener.0);
        self.round();
    }

    /// Handles a message from the server on a subject.
    pub fn receive(&self, subject: u64, payload: Bytes) {
        self.0.route(subject, payload, &mut WakeList::new());
    }

    fn round(&self) {
        // A subscription is confirmed by the round after its own.
        for _ in 0..2 {
            let round = self.0.begin_round();
            round.requests.iter().for_each(|request| self.0.requested(request.id, None));
            self.0.end_round(round, psrpc::Time::from_nanos(0));
        }
    }
}

impl std::fmt::Debug for Subjects {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subjects").finish_non_exhaustive()
    }
}
