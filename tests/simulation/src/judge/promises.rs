//! Operations: each must end exactly once, in time (I1).

use std::collections::BTreeSet;
use std::time::Duration;

use psrpc_engine::Time;

use super::fact::Asked;
use super::violation::{Checked, Invariant};
use crate::node_id::NodeId;

/// The operations of a run, indexed by their numbers.
#[derive(Default)]
pub(super) struct Promises {
    list: Vec<Promise>,
    /// The open operations, by their deadlines.
    due: BTreeSet<(Time, usize)>,
}

struct Promise {
    by: NodeId,
    deadline: Time,
    grace: Duration,
    state: PromiseState,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum PromiseState {
    Open,
    Kept,
    /// The user has dropped it, or its node has crashed.
    Void,
}

impl Promises {
    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    pub(super) fn make(&mut self, asked: &Asked) {
        let Asked { by, deadline, grace, .. } = *asked;
        let deadline = deadline + grace;
        self.due.insert((deadline, self.list.len()));
        self.list.push(Promise { by, deadline, grace, state: PromiseState::Open });
    }

    pub(super) fn is_open(&self, number: usize) -> bool {
        self.list[number].state == PromiseState::Open
    }

    /// Returns the deadline, including the grace period.
    pub(super) fn deadline(&self, number: usize) -> Time {
        self.list[number].deadline
    }

    /// Returns the node of an operation.
    pub(super) fn by(&self, number: usize) -> NodeId {
        self.list[number].by
    }

    /// Notes the end of an operation, and checks that it is the only one and in time.
    pub(super) fn keep(&mut self, now: Time, number: usize) -> Checked {
        let Promise { deadline, state, .. } = &mut self.list[number];
        if *state != PromiseState::Open {
            let before = if *state == PromiseState::Kept { "before" } else { "though nobody waits for it" };
            return Invariant::I1.violated(format!("it ended {before}"));
        }
        *state = PromiseState::Kept;
        self.due.remove(&(*deadline, number));
        if now > *deadline {
            return Invariant::I1.violated(format!("it ended {:?} past its deadline", now.since(*deadline)));
        }
        Ok(())
    }

    /// Notes that the user has dropped an operation.
    pub(super) fn void(&mut self, number: usize) {
        let Promise { deadline, state, .. } = &mut self.list[number];
        if *state == PromiseState::Open {
            *state = PromiseState::Void;
            self.due.remove(&(*deadline, number));
        }
    }

    /// Drops all open operations of a crashed node.
    pub(super) fn crash(&mut self, node: NodeId) {
        for number in self.open_of(node) {
            self.void(number);
        }
    }

    /// Moves the deadlines of a paused node to the end of the pause.
    pub(super) fn pause(&mut self, node: NodeId, until: Time) {
        for number in self.open_of(node) {
            let Promise { deadline, grace, .. } = &mut self.list[number];
            let until = until + *grace;
            if *deadline < until {
                self.due.remove(&(*deadline, number));
                *deadline = until;
                self.due.insert((until, number));
            }
        }
    }

    /// Checks that no operation is overdue.
    pub(super) fn check(&self, now: Time) -> Checked {
        match self.due.first() {
            Some((deadline, number)) if *deadline < now => {
                Invariant::I1.violated(format!("{number} has not ended at {now:?}, due at {deadline:?}"))
            }
            _ => Ok(()),
        }
    }

    /// Returns the open operations of a node.
    pub(super) fn open_of(&self, node: NodeId) -> Vec<usize> {
        self.due.iter().map(|(_, number)| *number).filter(|number| self.list[*number].by == node).collect()
    }
}
