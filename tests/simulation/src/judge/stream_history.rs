//! The history of an open stream, and its invariants.

use psrpc_engine::proto::{ErrorCode, Text};
use psrpc_engine::{Failure, Reason};

use super::violation::{Checked, Invariant};
use crate::node_id::NodeId;

/// The history of one stream, after its opening was published.
#[derive(Default)]
pub(super) struct StreamHistory {
    /// The servers that run its handler.
    pub(super) handlers: Vec<NodeId>,
    /// The messages that each side reported.
    received: Vec<(NodeId, usize)>,
    /// The messages that consumers accepted.
    accepted: Vec<(NodeId, usize)>,
    /// The causes of the end that each side sent.
    causes: Vec<(NodeId, ErrorCode, Text)>,
    /// The sides on which it has ended.
    pub(super) ended: Vec<NodeId>,
    pub(super) must_succeed: bool,
    /// Whether both sides must see its end, since no frame is lost any more.
    pub(super) is_watched: bool,
    /// Whether it failed to open at the client.
    pub(super) failed: bool,
    /// The messages that each side has published.
    published: Vec<(NodeId, usize)>,
}

impl StreamHistory {
    pub(super) fn new(must_succeed: bool, is_watched: bool) -> Self {
        Self { must_succeed, is_watched, ..Self::default() }
    }

    /// Checks that one side publishes its messages in order.
    pub(super) fn check_published(&mut self, node: NodeId, message: usize) -> Checked {
        if let Some((_, last)) =
            self.published.iter().rfind(|(known, last)| *known == node && *last > message)
        {
            return Invariant::I7.violated(format!("{node} published message {message} after {last}"));
        }
        self.published.push((node, message));
        Ok(())
    }

    /// Checks that a server runs the handler once.
    pub(super) fn handled(&mut self, node: NodeId) -> Checked {
        if self.handlers.contains(&node) {
            return Invariant::I8.violated(format!("{node} runs its handler twice"));
        }
        self.handlers.push(node);
        Ok(())
    }

    /// Checks a message of `from` that was reported at `at`.
    pub(super) fn message(&mut self, at: NodeId, message: usize, from: NodeId) -> Checked {
        if from == at {
            return Invariant::I7.violated(format!("message {message} was reported at its sender"));
        }
        if self.received.contains(&(at, message)) {
            return Invariant::I7.violated(format!("message {message} was reported twice at {at}"));
        }
        if self.ended.contains(&at) {
            return Invariant::I7.violated(format!("message {message} was reported at {at} after the end"));
        }
        // Without faults, messages keep their order.
        if let Some((_, last)) =
            self.received.iter().rfind(|(known, last)| self.must_succeed && *known == at && *last > message)
        {
            return Invariant::I7.violated(format!("message {message} was reported at {at} after {last}"));
        }
        self.received.push((at, message));
        Ok(())
    }

    /// Notes that the consumer accepted a message.
    pub(super) fn accepted(&mut self, at: NodeId, message: usize) {
        self.accepted.push((at, message));
    }

    /// Checks that the message of an acknowledged send was accepted.
    pub(super) fn sent(&self, message: usize) -> Checked {
        if self.accepted.iter().any(|(_, known)| *known == message) {
            return Ok(());
        }
        Invariant::I7.violated(format!("message {message} was acknowledged, but no consumer accepted it"))
    }

    /// Returns `true` if neither side has ended it.
    pub(super) fn is_open_on_both_sides(&self) -> bool {
        self.causes.is_empty() && self.ended.is_empty()
    }

    /// Notes the cause of the end that one side sent.
    pub(super) fn close_sent(&mut self, node: NodeId, code: &ErrorCode, text: &Text) {
        self.causes.push((node, code.clone(), text.clone()));
    }

    /// Checks the end on one side.
    pub(super) fn ended(&mut self, at: NodeId, cause: &Failure) -> Checked {
        if self.ended.contains(&at) {
            return Invariant::I8.violated(format!("it ended twice at {at}"));
        }
        self.ended.push(at);
        let peaceful = matches!(cause.reason, Reason::Closed | Reason::ClosedByPeer | Reason::Eof);
        if self.must_succeed && !peaceful {
            return Invariant::I16.violated(format!("a fresh stream ended at {at}: {cause}"));
        }
        if cause.reason == Reason::ClosedByPeer { self.check_cause(at, cause) } else { Ok(()) }
    }

    /// Checks that the other side sent this cause.
    pub(super) fn check_cause(&self, at: NodeId, cause: &Failure) -> Checked {
        let is_same_cause = |(node, code, text): &(NodeId, ErrorCode, Text)| {
            *node != at && super::responses::is_same(code, text, &cause.code, &cause.text)
        };
        if self.causes.iter().any(is_same_cause) {
            return Ok(());
        }
        Invariant::I6
            .violated(format!("it ended at {at} with {cause}, but the sent causes are {:?}", self.causes))
    }

    /// Returns `true` if one side has not seen the end that another has sent, and a server had
    /// accepted the stream.
    pub(super) fn is_half_open(&self, client: NodeId) -> bool {
        let has_seen = |side| self.ended.contains(side) || *side == client && self.failed;
        let mut sides = self.handlers.iter().chain([&client]);
        !self.handlers.is_empty() && (self.failed || !self.causes.is_empty()) && !sides.all(has_seen)
    }
}
