//! Promises: everything that was asked for must come to an end once, in time (I1).

use std::collections::BTreeSet;
use std::time::Duration;

use psrpc_engine::Time;

use super::fact::Asked;
use super::violation::{Checked, Invariant};
use crate::node_id::NodeId;

/// What was asked for, by its numbers.
#[derive(Default)]
pub(super) struct Promises {
    list: Vec<Promise>,
    /// Those that are not kept, by when they must be.
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
    /// Nobody waits for it any more, or is there any more.
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

    /// When it must be over.
    pub(super) fn deadline(&self, number: usize) -> Time {
        self.list[number].deadline
    }

    /// Who asked for it.
    pub(super) fn by(&self, number: usize) -> NodeId {
        self.list[number].by
    }

    /// It has ended.
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

    /// Nobody waits for it any more.
    pub(super) fn void(&mut self, number: usize) {
        let Promise { deadline, state, .. } = &mut self.list[number];
        if *state == PromiseState::Open {
            *state = PromiseState::Void;
            self.due.remove(&(*deadline, number));
        }
    }

    /// A node is gone.
    pub(super) fn crash(&mut self, node: NodeId) {
        for number in self.open_of(node) {
            self.void(number);
        }
    }

    /// A node does nothing until then.
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

    /// What is overdue.
    pub(super) fn check(&self, now: Time) -> Checked {
        match self.due.first() {
            Some((deadline, number)) if *deadline < now => {
                Invariant::I1.violated(format!("{number} has not ended at {now:?}, due at {deadline:?}"))
            }
            _ => Ok(()),
        }
    }

    /// What a node's user still waits for.
    pub(super) fn open_of(&self, node: NodeId) -> Vec<usize> {
        self.due.iter().map(|(_, number)| *number).filter(|number| self.list[*number].by == node).collect()
    }
}
