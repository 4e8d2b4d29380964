//! The history of an update, and its invariants.

use super::violation::{Checked, Invariant};
use crate::node_id::NodeId;

/// The history of one update.
pub(super) struct UpdateHistory {
    pub(super) subscribers: Vec<NodeId>,
    pub(super) queue: bool,
    pub(super) must_succeed: bool,
    /// The clients that reported it.
    receivers: Vec<NodeId>,
}

impl UpdateHistory {
    pub(super) fn new(subscribers: Vec<NodeId>, queue: bool, must_succeed: bool) -> Self {
        Self { subscribers, queue, must_succeed, receivers: Vec::new() }
    }

    /// Checks an update that a client reported.
    pub(super) fn received(&mut self, at: NodeId) -> Checked {
        if self.must_succeed && (self.receivers.contains(&at) || self.queue && !self.receivers.is_empty()) {
            return Invariant::I5
                .violated(format!("it was reported at {:?}, and again at {at}", self.receivers));
        }
        self.receivers.push(at);
        Ok(())
    }

    /// Checks at the end of the run that the subscribers received it.
    pub(super) fn check(&self) -> Checked {
        let missing = self.subscribers.iter().find(|subscriber| !self.receivers.contains(subscriber));
        let got = if self.queue {
            !self.receivers.is_empty() || self.subscribers.is_empty()
        } else {
            missing.is_none()
        };
        if self.must_succeed && !got {
            let (subscribers, receivers) = (&self.subscribers, &self.receivers);
            return Invariant::I13
                .violated(format!("a fresh update reached {receivers:?} of {subscribers:?}"));
        }
        Ok(())
    }
}
