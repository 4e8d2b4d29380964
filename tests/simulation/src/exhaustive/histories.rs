//! Histories: the step that each node takes after each sequence of inputs.
//!
//! An engine is deterministic (invariant I17), so its behaviour follows from its history alone. It
//! runs once for each history, and all schedules with that history share the result.

use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use psrpc_engine::proto::{Channel, Frame};
use psrpc_engine::{SubscriptionHandle, Time};

use super::driven_node::DrivenNode;
use super::scenario::{NODES, Scenario};
use super::step::{NodeInput, Step, StepFact};
use crate::judge::violation::{Invariant, Violation};

/// The id of an input, of any node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct InputId(u16);

/// The id of a history of one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct HistoryId(u32);

/// The id of a published frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FrameId(u16);

/// The histories of all nodes: a tree for each node.
pub(super) struct Histories {
    scenario: Scenario,
    sharing: Sharing,
    nodes: [Vec<History>; NODES],
    inputs: Interner<NodeInput>,
    frames: Interner<Frame>,
    /// The inputs that each frame causes at each subscription of each node.
    deliveries: BTreeMap<(FrameId, usize, SubscriptionHandle), Vec<InputId>>,
}

/// Which histories are merged.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Sharing {
    /// Histories that differ only in inputs that the node ignored.
    Ignored,
    /// No histories.
    #[cfg(test)]
    Nothing,
}

/// A history of one node.
struct History {
    /// The previous history, and the time and the input that extend it; `None` at the root.
    last: Option<(HistoryId, Time, InputId)>,
    /// The step that the node took, or the violation that ended it.
    step: Result<InternedStep, Violation>,
    next: BTreeMap<(Time, InputId), HistoryId>,
    /// The history that it is merged into, or itself.
    merged: HistoryId,
}

/// A step, with the ids of its acts and frames.
pub(super) struct InternedStep {
    pub(super) step: Step,
    pub(super) acts: Vec<InputId>,
    pub(super) published: Vec<(Channel, FrameId)>,
}

impl Histories {
    /// The history of a node without any input.
    pub(super) const BEGINNING: HistoryId = HistoryId(0);

    /// The input for a timer that fires.
    pub(super) const TICK: InputId = InputId(0);

    pub(super) fn new(scenario: Scenario, sharing: Sharing) -> Self {
        let (inputs, frames, deliveries) = (Interner::new(), Interner::new(), BTreeMap::new());
        let nodes = std::array::from_fn(|_| Vec::new());
        let mut histories = Self { scenario, sharing, nodes, inputs, frames, deliveries };
        histories.inputs.intern(NodeInput::Tick);
        for node in 0..NODES {
            let (_, step) = DrivenNode::new(&scenario, node);
            let (step, next) = (Ok(histories.intern_all(step)), BTreeMap::new());
            histories.nodes[node].push(History { last: None, step, next, merged: Self::BEGINNING });
        }
        histories
    }

    /// Returns the number of histories, which is how often an engine ran.
    pub(super) fn len(&self) -> usize {
        self.nodes.iter().map(Vec::len).sum()
    }

    pub(super) fn input(&self, InputId(input): InputId) -> &NodeInput {
        &self.inputs.values[usize::from(input)]
    }

    /// Returns the inputs that a frame causes at a subscription: the frame itself, or its
    /// replacements if the scenario alters frames.
    pub(super) fn deliveries(
        &mut self,
        frame: FrameId,
        to: usize,
        subscription: SubscriptionHandle,
    ) -> &[InputId] {
        let Self { scenario, inputs, frames, deliveries, .. } = self;
        deliveries.entry((frame, to, subscription)).or_insert_with(|| {
            let frame = &frames.values[usize::from(frame.0)];
            let frames = scenario.spoil.map_or_else(|| vec![frame.clone()], |spoil| spoil(to, frame));
            frames
                .into_iter()
                .map(|frame| InputId(inputs.intern(NodeInput::Frame(subscription, frame))))
                .collect()
        })
    }

    /// Returns the input for the same frame on another subscription.
    pub(super) fn redirected(&mut self, input: InputId, subscription: SubscriptionHandle) -> InputId {
        match self.input(input).clone() {
            NodeInput::Frame(_, frame) => InputId(self.inputs.intern(NodeInput::Frame(subscription, frame))),
            NodeInput::Tick | NodeInput::Act(_) => input,
        }
    }

    /// Returns the last step of a history.
    ///
    /// # Errors
    ///
    /// Fails if the engine panicked.
    pub(super) fn last_step(&self, node: usize, history: HistoryId) -> Result<&InternedStep, Violation> {
        self.nodes[node][history.0 as usize].step.as_ref().map_err(Clone::clone)
    }

    /// Returns the history that a history is merged into, or itself.
    pub(super) fn merged(&self, node: usize, history: HistoryId) -> HistoryId {
        self.nodes[node][history.0 as usize].merged
    }

    /// Returns the history that extends `before` by an input.
    pub(super) fn after(&mut self, node: usize, before: HistoryId, now: Time, input: InputId) -> HistoryId {
        if let Some(known) = self.nodes[node][before.0 as usize].next.get(&(now, input)) {
            return *known;
        }
        let step = catch_unwind(AssertUnwindSafe(|| self.replay(node, before).step(now, self.input(input))));
        let step = step.map(|step| self.intern_all(step)).map_err(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no text");
            Violation { invariant: Invariant::I11, what: format!("panic: {text}") }
        });
        let histories = &mut self.nodes[node];
        let new = HistoryId(u32::try_from(histories.len()).expect("a scenario is small"));
        let previous = &histories[before.0 as usize].step;
        let ignored =
            matches!((&step, previous), (Ok(is), Ok(previous)) if is.step.changes_nothing(&previous.step));
        let merged = if ignored && self.sharing == Sharing::Ignored { before } else { new };
        histories.push(History { last: Some((before, now, input)), step, next: BTreeMap::new(), merged });
        histories[before.0 as usize].next.insert((now, input), new);
        new
    }

    /// Returns the node in its state after a history.
    fn replay(&self, node: usize, history: HistoryId) -> DrivenNode {
        let histories = &self.nodes[node];
        let before = |history: &HistoryId| histories[history.0 as usize].last.map(|(before, ..)| before);
        let path: Vec<_> = std::iter::successors(Some(history), before).collect();
        let (mut replayed, _) = DrivenNode::new(&self.scenario, node);
        for (_, now, input) in path.iter().rev().filter_map(|history| histories[history.0 as usize].last) {
            replayed.step(now, self.input(input));
        }
        replayed
    }

    fn intern_all(&mut self, step: Step) -> InternedStep {
        let Self { inputs, frames, .. } = self;
        let acts = step.acts.iter().map(|act| InputId(inputs.intern(NodeInput::Act(*act)))).collect();
        let published = step.facts.iter().filter_map(|fact| match fact {
            StepFact::Published(channel, frame) => {
                Some((channel.clone(), FrameId(frames.intern(frame.clone()))))
            }
            _ => None,
        });
        InternedStep { acts, published: published.collect(), step }
    }
}

/// Interned values with numeric ids. Values with the same debug text share an id.
struct Interner<T> {
    values: Vec<T>,
    ids: BTreeMap<String, u16>,
}

impl<T: fmt::Debug> Interner<T> {
    const fn new() -> Self {
        Self { values: Vec::new(), ids: BTreeMap::new() }
    }

    fn intern(&mut self, value: T) -> u16 {
        *self.ids.entry(format!("{value:?}")).or_insert_with(|| {
            self.values.push(value);
            u16::try_from(self.values.len() - 1).expect("a scenario is small")
        })
    }
}
