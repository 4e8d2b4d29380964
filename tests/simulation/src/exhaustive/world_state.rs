//! States of a scenario, and the steps between them.

use psrpc_engine::proto::Channel;
use psrpc_engine::{SubscriptionHandle, SubscriptionKind, Time};

use super::histories::{FrameId, Histories, HistoryId, InputId};
use super::oracle::Oracle;
use super::scenario::{CLIENT, NODES, Scenario, name};
use super::step::{NodeAct, NodeInput, Step};
use crate::judge::violation::{Checked, Invariant, Violation};

/// A published frame and its possible receivers, one of which gets it.
struct Sent {
    to: Vec<Pending>,
    /// Whether it is a duplicate, which cannot also be lost.
    is_copy: bool,
}

/// The state of a scenario: everything that its future depends on.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct WorldState {
    /// The history of each node; `None` after a crash.
    nodes: [Option<HistoryId>; NODES],
    now: Time,
    /// The pending inputs of all nodes, sorted.
    pending: Vec<Pending>,
    /// The number of faults so far.
    pub(super) faults: u8,
    /// Whether there was no fault, and time has never passed while inputs were pending.
    calm: bool,
    oracle: Oracle,
}

/// A pending input of a node: a frame, or an act.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Pending {
    to: u8,
    pub(super) input: InputId,
}

impl Pending {
    fn new(to: usize, input: InputId) -> Self {
        Self { to: to as u8, input }
    }

    /// Returns the node that it arrives at.
    pub(super) fn to(&self) -> usize {
        usize::from(self.to)
    }
}

/// A possible next step.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Move {
    /// A pending input arrives.
    Arrive(Pending),
    /// A frame arrives, and will arrive once more.
    Duplicate(Pending),
    /// The timer of a node fires.
    Timeout(usize),
    /// A server crashes.
    Crash(usize),
}

/// A step that was taken, and the frames that were lost in it.
pub(super) struct TakenStep {
    pub(super) choice: Move,
    pub(super) at: Time,
    /// The node of the step, and its history after it.
    pub(super) at_node: Option<(usize, HistoryId)>,
    pub(super) lost: Vec<Pending>,
    /// The number of faults since the start.
    pub(super) faults: u8,
    pub(super) state: Result<WorldState, Violation>,
}

impl WorldState {
    /// Returns the initial state.
    pub(super) fn first(scenario: &Scenario, histories: &Histories) -> Self {
        let mut pending = Vec::new();
        for to in 0..NODES {
            let done = histories
                .last_step(to, Histories::BEGINNING)
                .expect("the initial history has no input that can fail");
            pending.extend(done.acts.iter().map(|act| Pending::new(to, *act)));
        }
        let nodes = [Some(Histories::BEGINNING); NODES];
        Self { nodes, now: Time::ZERO, pending, faults: 0, calm: true, oracle: Oracle::new(scenario) }
    }
}

impl WorldState {
    /// Returns all possible steps; none at the end of a schedule.
    pub(super) fn steps(&self, scenario: &Scenario, histories: &mut Histories) -> Vec<TakenStep> {
        let mut moves = self.moves(scenario, histories);
        if !moves.is_empty() && self.faults < scenario.faults {
            let alive = (0..NODES).filter(|node| *node != CLIENT && self.nodes[*node].is_some());
            moves.extend(alive.map(Move::Crash));
        }
        let mut steps = Vec::new();
        for choice in moves {
            let mut next = self.clone();
            let sent = next.take(histories, choice);
            let (at, at_node, faults) = (next.now, next.history_of(choice), next.faults);
            match sent {
                Ok(sent) => next.settle(scenario, &sent, Vec::new(), &mut |state, lost| {
                    let faults = state.faults;
                    steps.push(TakenStep { choice, at, at_node, lost, faults, state: Ok(state) });
                }),
                Err(violation) => {
                    let lost = Vec::new();
                    steps.push(TakenStep { choice, at, at_node, lost, faults, state: Err(violation) });
                }
            }
        }
        steps
    }

    /// Returns the node of a move, and its history.
    fn history_of(&self, choice: Move) -> Option<(usize, HistoryId)> {
        let node = match choice {
            Move::Arrive(pending) | Move::Duplicate(pending) => pending.to(),
            Move::Timeout(node) | Move::Crash(node) => node,
        };
        Some((node, self.nodes[node]?))
    }

    /// Returns all possible moves except crashes.
    fn moves(&self, scenario: &Scenario, histories: &Histories) -> Vec<Move> {
        let mut moves = Vec::new();
        let mut last = None;
        for pending in &self.pending {
            // The order of equal inputs does not matter.
            if last.replace(*pending) == Some(*pending) || !self.can_arrive(histories, pending) {
                continue;
            }
            moves.push(Move::Arrive(*pending));
            if self.faults < scenario.faults && matches!(histories.input(pending.input), NodeInput::Frame(..))
            {
                moves.push(Move::Duplicate(*pending));
            }
        }
        let timers = || (0..NODES).filter_map(|node| Some((node, self.last_step(histories, node)?.timer?)));
        if let Some(earliest) = timers().map(|(_, at)| at).min() {
            moves.extend(timers().filter(|(_, at)| *at == earliest).map(|(node, _)| Move::Timeout(node)));
        }
        moves
    }

    /// Returns `true` if an input may arrive now. A bus delivers all frames of a subscription
    /// before it confirms the end.
    fn can_arrive(&self, histories: &Histories, pending: &Pending) -> bool {
        let NodeInput::Act(NodeAct::Unsubscribed(ended)) = histories.input(pending.input) else {
            return true;
        };
        let is_pending = |other: &Pending| match histories.input(other.input) {
            NodeInput::Frame(subscription, _) => other.to == pending.to && subscription == ended,
            _ => false,
        };
        !self.pending.iter().any(is_pending)
    }

    /// Returns the last step of a node, or `None` if it has crashed.
    fn last_step<'a>(&self, histories: &'a Histories, node: usize) -> Option<&'a Step> {
        let history = self.nodes[node]?;
        Some(&histories.last_step(node, history).expect("a panic ends a schedule").step)
    }

    /// Makes a move, and returns the frames that were published in it.
    fn take(&mut self, histories: &mut Histories, choice: Move) -> Result<Vec<Sent>, Violation> {
        let mut sent = Vec::new();
        let (node, input) = match choice {
            Move::Arrive(pending) => {
                self.remove(pending);
                (pending.to(), pending.input)
            }
            Move::Duplicate(pending) => {
                self.remove(pending);
                self.faults += 1;
                sent.push(Sent { to: self.receivers_of_copy(histories, pending), is_copy: true });
                (pending.to(), pending.input)
            }
            Move::Timeout(node) => {
                let timer = self.last_step(histories, node).and_then(|step| step.timer);
                self.now = timer.expect("the node has a timer").max(self.now);
                self.calm &= self.pending.is_empty();
                self.oracle.time_advanced(self.now)?;
                (node, Histories::TICK)
            }
            Move::Crash(node) => {
                self.faults += 1;
                self.calm = false;
                self.nodes[node] = None;
                self.pending.retain(|pending| pending.to() != node);
                self.oracle.crashed(node);
                return Ok(sent);
            }
        };
        self.calm &= self.faults == 0;
        let history =
            histories.after(node, self.nodes[node].expect("the node has not crashed"), self.now, input);
        self.nodes[node] = Some(histories.merged(node, history));
        let done = histories.last_step(node, history)?;
        for fact in &done.step.facts {
            self.oracle.note(node, self.now, fact)?;
        }
        self.oracle.step_ended()?;
        let next = done.step.timer;
        if choice == Move::Timeout(node) && next.is_some_and(|next| next <= self.now) {
            Invariant::I18.violated(format!("ran timers at {:?}, but the next is at {next:?}", self.now))?;
        }
        for act in &done.acts {
            self.add(Pending::new(node, *act));
        }
        for (channel, frame) in done.published.clone() {
            self.publish(histories, &channel, frame, &mut sent);
        }
        Ok(sent)
    }

    /// Routes a frame to the subscribers of its channel.
    fn publish(&self, histories: &mut Histories, channel: &Channel, frame: FrameId, sent: &mut Vec<Sent>) {
        let mut members = Vec::new();
        for (to, subscription, kind) in self.subscribers(histories, channel) {
            let deliveries = histories.deliveries(frame, to, subscription);
            let pending = deliveries.iter().map(|input| Pending::new(to, *input));
            match kind {
                SubscriptionKind::Plain => {
                    sent.extend(pending.map(|pending| Sent { to: vec![pending], is_copy: false }));
                }
                SubscriptionKind::Queue => members.extend(pending),
            }
        }
        if !members.is_empty() {
            sent.push(Sent { to: members, is_copy: false });
        }
    }

    fn subscribers(
        &self,
        histories: &Histories,
        channel: &Channel,
    ) -> Vec<(usize, SubscriptionHandle, SubscriptionKind)> {
        let mut subscribers = Vec::new();
        for node in 0..NODES {
            let Some(step) = self.last_step(histories, node) else { continue };
            let here = step.subscriptions.iter().filter(|subscription| subscription.channel == *channel);
            subscribers.extend(here.map(|subscription| (node, subscription.handle, subscription.kind)));
        }
        subscribers
    }

    /// Returns the possible receivers of a duplicate: the subscriber, or any member of its queue.
    fn receivers_of_copy(&self, histories: &mut Histories, pending: Pending) -> Vec<Pending> {
        let NodeInput::Frame(handle, _) = *histories.input(pending.input) else { return vec![pending] };
        let here = self.last_step(histories, pending.to()).map_or(&[][..], |step| &step.subscriptions);
        let queue = here.iter().find(|known| known.handle == handle && known.kind == SubscriptionKind::Queue);
        let Some(channel) = queue.map(|queue| queue.channel.clone()) else { return vec![pending] };
        let members = self.subscribers(histories, &channel).into_iter();
        members.map(|(to, handle, _)| Pending::new(to, histories.redirected(pending.input, handle))).collect()
    }

    /// Adds frames to the pending inputs, for each choice of receivers and of lost frames.
    fn settle(
        mut self,
        scenario: &Scenario,
        sent: &[Sent],
        mut lost: Vec<Pending>,
        each: &mut impl FnMut(WorldState, Vec<Pending>),
    ) {
        let Some((first, rest)) = sent.split_first() else { return each(self, lost) };
        for to in &first.to {
            let mut next = self.clone();
            next.add(*to);
            next.settle(scenario, rest, lost.clone(), each);
        }
        if !first.is_copy && self.faults < scenario.faults {
            self.faults += 1;
            self.calm = false;
            lost.push(first.to[0]);
            self.settle(scenario, rest, lost, each);
        }
    }

    /// Checks the invariants at the end of a schedule.
    pub(super) fn end(&self, histories: &Histories) -> Checked {
        self.oracle.end(self.calm)?;
        for node in 0..NODES {
            let table_entries = self.last_step(histories, node).map_or(0, |step| step.table_entries);
            if table_entries > 0 {
                return Invariant::I9
                    .violated(format!("{} has {table_entries} table entries left at the end", name(node)));
            }
        }
        Ok(())
    }

    fn remove(&mut self, pending: Pending) {
        let index = self.pending.binary_search(&pending).expect("the input is pending");
        self.pending.remove(index);
    }

    fn add(&mut self, pending: Pending) {
        let index = self.pending.partition_point(|other| *other < pending);
        self.pending.insert(index, pending);
    }
}
