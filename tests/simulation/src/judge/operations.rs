//! Operations: each must end exactly once, in time (I1).

use std::collections::BTreeSet;
use std::time::Duration;

use psrpc_engine::Time;

use super::fact::Operation;
use super::violation::{Checked, Invariant};
use crate::node_id::NodeId;

/// The operations of a run, indexed by their numbers.
#[derive(Default)]
pub(super) struct Operations {
    records: Vec<Record>,
    /// The open operations, by their deadlines.
    due: BTreeSet<(Time, usize)>,
}

struct Record {
    node: NodeId,
    deadline: Time,
    grace: Duration,
    state: OperationState,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum OperationState {
    Open,
    Ended,
    /// The user has dropped it, or its node has crashed.
    Abandoned,
}

impl Operations {
    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    pub(super) fn start(&mut self, operation: &Operation) {
        let Operation { node, deadline, grace, .. } = *operation;
        let deadline = deadline + grace;
        self.due.insert((deadline, self.records.len()));
        self.records.push(Record { node, deadline, grace, state: OperationState::Open });
    }

    pub(super) fn is_open(&self, number: usize) -> bool {
        self.records[number].state == OperationState::Open
    }

    /// Returns the deadline, including the grace period.
    pub(super) fn deadline(&self, number: usize) -> Time {
        self.records[number].deadline
    }

    /// Returns the node of an operation.
    pub(super) fn node(&self, number: usize) -> NodeId {
        self.records[number].node
    }

    /// Notes the end of an operation, and checks that it is the only one and in time.
    pub(super) fn end(&mut self, now: Time, number: usize) -> Checked {
        let Record { deadline, state, .. } = &mut self.records[number];
        if *state != OperationState::Open {
            let before =
                if *state == OperationState::Ended { "before" } else { "although its user dropped it" };
            return Invariant::I1.violated(format!("it ended {before}"));
        }
        *state = OperationState::Ended;
        self.due.remove(&(*deadline, number));
        if now > *deadline {
            return Invariant::I1.violated(format!("it ended {:?} past its deadline", now.since(*deadline)));
        }
        Ok(())
    }

    /// Notes that the user has dropped an operation.
    pub(super) fn abandon(&mut self, number: usize) {
        let Record { deadline, state, .. } = &mut self.records[number];
        if *state == OperationState::Open {
            *state = OperationState::Abandoned;
            self.due.remove(&(*deadline, number));
        }
    }

    /// Drops all open operations of a crashed node.
    pub(super) fn crash(&mut self, node: NodeId) {
        for number in self.open_on(node) {
            self.abandon(number);
        }
    }

    /// Moves the deadlines of a paused node to the end of the pause.
    pub(super) fn pause(&mut self, node: NodeId, until: Time) {
        for number in self.open_on(node) {
            let Record { deadline, grace, .. } = &mut self.records[number];
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
    pub(super) fn open_on(&self, node: NodeId) -> Vec<usize> {
        self.due
            .iter()
            .map(|(_, number)| *number)
            .filter(|number| self.records[*number].node == node)
            .collect()
    }
}
