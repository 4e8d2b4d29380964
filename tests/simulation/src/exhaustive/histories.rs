//! Histories: what each node did after each sequence of inputs that it was ever given.
//!
//! An engine is deterministic (invariant I17), so what it does follows from its history alone: it
//! is run once for each, and the schedules that bring it there share that.

use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use psrpc_engine::proto::{Channel, Frame};
use psrpc_engine::{SubscriptionHandle, Time};

use super::driven_node::DrivenNode;
use super::scenario::{NODES, Scenario};
use super::step::{NodeInput, Step, StepFact};
use crate::judge::violation::{Invariant, Violation};

/// Names an input, of whatever node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct InputId(u16);

/// Names a history of one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct HistoryId(u32);

/// Names a frame that was published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FrameId(u16);

/// The histories of all nodes, each a branch of the node's tree.
pub(super) struct Histories {
    scenario: Scenario,
    sharing: Sharing,
    nodes: [Vec<History>; NODES],
    inputs: Named<NodeInput>,
    frames: Named<Frame>,
    /// What each frame is to each subscription of each node.
    deliveries: BTreeMap<(FrameId, usize, SubscriptionHandle), Vec<InputId>>,
}

/// Which histories count as one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Sharing {
    /// Those that differ in what their node ignored.
    Ignored,
    /// None.
    #[cfg(test)]
    Nothing,
}

/// A history of one node.
struct History {
    /// What was before, and what came when; `None` at the root.
    last: Option<(HistoryId, Time, InputId)>,
    /// What the node did then.
    step: Result<Done, Violation>,
    next: BTreeMap<(Time, InputId), HistoryId>,
    /// The history that counts for it.
    same: HistoryId,
}

/// A step, with what comes of it by name.
pub(super) struct Done {
    pub(super) step: Step,
    pub(super) acts: Vec<InputId>,
    pub(super) published: Vec<(Channel, FrameId)>,
}

impl Histories {
    /// The history of a node to which nothing has come yet.
    pub(super) const BEGINNING: HistoryId = HistoryId(0);

    /// What comes when a timer fires.
    pub(super) const TICK: InputId = InputId(0);

    pub(super) fn new(scenario: Scenario, sharing: Sharing) -> Self {
        let (inputs, frames, deliveries) = (Named::new(), Named::new(), BTreeMap::new());
        let nodes = std::array::from_fn(|_| Vec::new());
        let mut histories = Self { scenario, sharing, nodes, inputs, frames, deliveries };
        histories.inputs.name(NodeInput::Tick);
        for node in 0..NODES {
            let (_, step) = DrivenNode::new(&scenario, node);
            let (step, next) = (Ok(histories.name_all(step)), BTreeMap::new());
            histories.nodes[node].push(History { last: None, step, next, same: Self::BEGINNING });
        }
        histories
    }

    /// How often an engine was run.
    pub(super) fn len(&self) -> usize {
        self.nodes.iter().map(Vec::len).sum()
    }

    pub(super) fn input(&self, InputId(input): InputId) -> &NodeInput {
        &self.inputs.things[usize::from(input)]
    }

    /// What a frame is to a subscription of a node: once itself, unless the scenario has it
    /// altered.
    pub(super) fn deliveries(
        &mut self,
        frame: FrameId,
        to: usize,
        subscription: SubscriptionHandle,
    ) -> &[InputId] {
        let Self { scenario, inputs, frames, deliveries, .. } = self;
        deliveries.entry((frame, to, subscription)).or_insert_with(|| {
            let frame = &frames.things[usize::from(frame.0)];
            let frames = scenario.spoil.map_or_else(|| vec![frame.clone()], |spoil| spoil(to, frame));
            frames
                .into_iter()
                .map(|frame| InputId(inputs.name(NodeInput::Frame(subscription, frame))))
                .collect()
        })
    }

    /// The same frame on another subscription.
    pub(super) fn on(&mut self, input: InputId, subscription: SubscriptionHandle) -> InputId {
        match self.input(input).clone() {
            NodeInput::Frame(_, frame) => InputId(self.inputs.name(NodeInput::Frame(subscription, frame))),
            NodeInput::Tick | NodeInput::Act(_) => input,
        }
    }

    /// What a node did last.
    ///
    /// # Errors
    ///
    /// When it panicked.
    pub(super) fn done(&self, node: usize, history: HistoryId) -> Result<&Done, Violation> {
        self.nodes[node][history.0 as usize].step.as_ref().map_err(Clone::clone)
    }

    /// The history that counts for a history.
    pub(super) fn same(&self, node: usize, history: HistoryId) -> HistoryId {
        self.nodes[node][history.0 as usize].same
    }

    /// The history of a node to which an input comes, too.
    pub(super) fn after(&mut self, node: usize, before: HistoryId, now: Time, input: InputId) -> HistoryId {
        if let Some(known) = self.nodes[node][before.0 as usize].next.get(&(now, input)) {
            return *known;
        }
        let step = catch_unwind(AssertUnwindSafe(|| self.live(node, before).step(now, self.input(input))));
        let step = step.map(|step| self.name_all(step)).map_err(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no text");
            Violation { invariant: Invariant::I11, what: format!("panic: {text}") }
        });
        let histories = &mut self.nodes[node];
        let new = HistoryId(u32::try_from(histories.len()).expect("a scenario is small"));
        let was = &histories[before.0 as usize].step;
        let ignored = matches!((&step, was), (Ok(is), Ok(was)) if is.step.changes_nothing(&was.step));
        let same = if ignored && self.sharing == Sharing::Ignored { before } else { new };
        histories.push(History { last: Some((before, now, input)), step, next: BTreeMap::new(), same });
        histories[before.0 as usize].next.insert((now, input), new);
        new
    }

    /// The node as it is after a history.
    fn live(&self, node: usize, history: HistoryId) -> DrivenNode {
        let histories = &self.nodes[node];
        let before = |history: &HistoryId| histories[history.0 as usize].last.map(|(before, ..)| before);
        let path: Vec<_> = std::iter::successors(Some(history), before).collect();
        let (mut live, _) = DrivenNode::new(&self.scenario, node);
        for (_, now, input) in path.iter().rev().filter_map(|history| histories[history.0 as usize].last) {
            live.step(now, self.input(input));
        }
        live
    }

    fn name_all(&mut self, step: Step) -> Done {
        let Self { inputs, frames, .. } = self;
        let acts = step.acts.iter().map(|act| InputId(inputs.name(NodeInput::Act(*act)))).collect();
        let published = step.facts.iter().filter_map(|fact| match fact {
            StepFact::Published(channel, frame) => {
                Some((channel.clone(), FrameId(frames.name(frame.clone()))))
            }
            _ => None,
        });
        Done { acts, published: published.collect(), step }
    }
}

/// Things with numbers for names, the same for all that look the same.
struct Named<T> {
    things: Vec<T>,
    names: BTreeMap<String, u16>,
}

impl<T: fmt::Debug> Named<T> {
    const fn new() -> Self {
        Self { things: Vec::new(), names: BTreeMap::new() }
    }

    fn name(&mut self, thing: T) -> u16 {
        *self.names.entry(format!("{thing:?}")).or_insert_with(|| {
            self.things.push(thing);
            u16::try_from(self.things.len() - 1).expect("a scenario is small")
        })
    }
}
