//! Steps: an input of a node, and its effects on other nodes or the oracle.

use psrpc_engine::proto::{Channel, Frame, StreamBody};
use psrpc_engine::{ClientEvent, RequestHandle, ServerEvent, SubscriptionHandle, SubscriptionKind, Time};

/// An input of a node.
#[derive(Clone, Debug)]
pub(super) enum NodeInput {
    /// Its timer is due.
    Tick,
    /// A frame arrives.
    Frame(SubscriptionHandle, Frame),
    /// Its user or its bus acts.
    Act(NodeAct),
}

/// An act of a node's user or bus, which may happen at any later time.
#[derive(Clone, Copy, Debug)]
pub(super) enum NodeAct {
    /// The caller makes its call.
    Call,
    /// The caller cancels its call.
    Cancel,
    /// A handler finishes.
    Answer(RequestHandle),
    /// A server publishes an update.
    Publish,
    /// The bus confirms a subscription.
    Subscribed(SubscriptionHandle),
    /// The subscriber unsubscribes.
    Unsubscribe,
    /// The bus confirms the end of a subscription.
    Unsubscribed(SubscriptionHandle),
}

/// A step of a node.
pub(super) struct Step {
    /// Its inputs and outputs, in order.
    pub(super) facts: Vec<StepFact>,
    /// The acts that will follow from it.
    pub(super) acts: Vec<NodeAct>,
    /// The subscriptions of the node.
    pub(super) subscriptions: Vec<NodeSubscription>,
    /// The next timeout of the engine.
    pub(super) timer: Option<Time>,
    /// The sum of all counters of the engine. Most of them count dropped frames.
    pub(super) drops: u64,
    /// The number of entries in the engine's tables.
    pub(super) table_entries: usize,
}

impl Step {
    /// Returns `true` if the node has not changed since the step `before`: it ignored a command or
    /// dropped a frame, and its timer and tables are the same.
    pub(super) fn changes_nothing(&self, before: &Step) -> bool {
        let is_dropped = self.drops > before.drops;
        let is_nothing = |fact: &StepFact| match fact {
            StepFact::Acted(_) => true,
            StepFact::Received(_) => is_dropped,
            StepFact::Client(ClientEvent::Dropped(_)) | StepFact::Server(ServerEvent::Dropped(_)) => {
                !self.is_message()
            }
            _ => false,
        };
        self.facts.iter().all(is_nothing)
            && !self.facts.is_empty()
            && self.acts.is_empty()
            && (self.timer, self.table_entries) == (before.timer, before.table_entries)
    }

    /// Returns `true` if a message of a stream arrived. It resets the idle timeout even if it is
    /// dropped.
    fn is_message(&self) -> bool {
        let is_message = |body: &Option<StreamBody>| matches!(body, Some(StreamBody::Message { .. }));
        self.facts
            .iter()
            .any(|fact| matches!(fact, StepFact::Received(Frame::Stream(stream)) if is_message(&stream.body)))
    }
}

/// An input or an output of a node.
pub(super) enum StepFact {
    Received(Frame),
    Acted(NodeAct),
    Published(Channel, Frame),
    Client(ClientEvent),
    Server(ServerEvent),
}

/// A subscription of a node.
#[derive(Clone)]
pub(super) struct NodeSubscription {
    pub(super) handle: SubscriptionHandle,
    pub(super) channel: Channel,
    pub(super) kind: SubscriptionKind,
}
