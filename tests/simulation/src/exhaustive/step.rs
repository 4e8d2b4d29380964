//! Steps: what comes to a node, and what the node does then, as far as other nodes or the oracle
//! notice it.

use psrpc_engine::proto::{Channel, Frame, StreamBody};
use psrpc_engine::{ClientEvent, RequestHandle, ServerEvent, SubscriptionHandle, SubscriptionKind, Time};

/// What comes to a node.
#[derive(Clone, Debug)]
pub(super) enum NodeInput {
    /// The time of its next timer has come.
    Tick,
    /// A frame.
    Frame(SubscriptionHandle, Frame),
    /// Its user, or its bus, does something.
    Act(NodeAct),
}

/// What happens at a node by itself, sooner or later.
#[derive(Clone, Copy, Debug)]
pub(super) enum NodeAct {
    /// The caller makes its call.
    Call,
    /// The caller cancels it.
    Cancel,
    /// A handler is done.
    Answer(RequestHandle),
    /// A server publishes an update.
    Publish,
    /// The bus confirms a subscription.
    Subscribed(SubscriptionHandle),
    /// The subscriber has enough.
    Unsubscribe,
    /// The bus confirms the end of a subscription.
    Unsubscribed(SubscriptionHandle),
}

/// What a node did in one step.
pub(super) struct Step {
    /// What went in and came out, in order.
    pub(super) facts: Vec<StepFact>,
    /// What will come to it by itself.
    pub(super) acts: Vec<NodeAct>,
    /// What it is subscribed to.
    pub(super) subscriptions: Vec<NodeSubscription>,
    /// When it wants to be woken next.
    pub(super) timer: Option<Time>,
    /// How many frames it has dropped so far, among other things that it counts.
    pub(super) drops: u64,
    /// How many things its engine holds.
    pub(super) holds: usize,
}

impl Step {
    /// Whether the node is as it was `before` this: it ignored a command, or says that it dropped a
    /// frame, and wants and holds what it did.
    pub(super) fn changes_nothing(&self, before: &Step) -> bool {
        let is_dropped = self.drops > before.drops;
        let is_nothing = |fact: &StepFact| match fact {
            StepFact::Did(_) => true,
            StepFact::Heard(_) => is_dropped,
            StepFact::Client(ClientEvent::Dropped(_)) | StepFact::Server(ServerEvent::Dropped(_)) => {
                !self.is_message()
            }
            _ => false,
        };
        self.facts.iter().all(is_nothing)
            && !self.facts.is_empty()
            && self.acts.is_empty()
            && (self.timer, self.holds) == (before.timer, before.holds)
    }

    /// Whether a message of a stream came, which shows that the other side is there even if it is
    /// dropped.
    fn is_message(&self) -> bool {
        let is_message = |body: &Option<StreamBody>| matches!(body, Some(StreamBody::Message { .. }));
        self.facts
            .iter()
            .any(|fact| matches!(fact, StepFact::Heard(Frame::Stream(stream)) if is_message(&stream.body)))
    }
}

/// Something that went into a node or came out.
pub(super) enum StepFact {
    Heard(Frame),
    Did(NodeAct),
    Published(Channel, Frame),
    Client(ClientEvent),
    Server(ServerEvent),
}

/// What a node is subscribed to.
#[derive(Clone)]
pub(super) struct NodeSubscription {
    pub(super) handle: SubscriptionHandle,
    pub(super) channel: Channel,
    pub(super) kind: SubscriptionKind,
}
