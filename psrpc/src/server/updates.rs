//! The updates that a server is publishing.

use std::task::{Context, Poll, Waker};

use psrpc_engine::{Failure, UpdateHandle};
use slab::Slab;

use crate::waiting;

/// The outcome of an update.
pub(super) type Outcome = Result<Option<u64>, Box<Failure>>;

/// The updates that a server is publishing, and the tasks that wait for them.
#[derive(Default)]
pub(super) struct PublishTable {
    publishers: Slab<Publisher>,
    /// The keys of the publishers, by the index of the update handle.
    updates: Vec<Option<usize>>,
}

struct Publisher {
    update: UpdateHandle,
    outcome: Option<Outcome>,
    waker: Option<Waker>,
}

impl PublishTable {
    pub(super) fn start(&mut self, update: UpdateHandle) -> usize {
        let key = self.publishers.insert(Publisher { update, outcome: None, waker: None });
        if self.updates.len() <= update.index() {
            self.updates.resize(update.index() + 1, None);
        }
        self.updates[update.index()] = Some(key);
        key
    }

    /// Stores the outcome of an update, and returns the task to wake.
    pub(super) fn ended(&mut self, update: UpdateHandle, outcome: Outcome) -> Option<Waker> {
        // An update that was dropped has no publisher.
        let publisher = self.updates.get_mut(update.index())?.take()?;
        let publisher = &mut self.publishers[publisher];
        publisher.outcome = Some(outcome);
        publisher.waker.take()
    }

    /// Returns the outcome of an update, if it has ended, and a waker to drop after the lock is
    /// released.
    pub(super) fn poll(&mut self, key: usize, cx: &Context<'_>) -> (Poll<Outcome>, Option<Waker>) {
        let publisher = &mut self.publishers[key];
        match publisher.outcome.take() {
            Some(outcome) => (Poll::Ready(outcome), self.publishers.remove(key).waker),
            None => (Poll::Pending, waiting::replace(&mut publisher.waker, cx)),
        }
    }

    /// Removes the publisher of an update that was dropped. Returns the update, if it is still in
    /// flight, and a waker to drop after the lock is released.
    pub(super) fn remove(&mut self, key: usize) -> (Option<UpdateHandle>, Option<Waker>) {
        let Publisher { update, outcome, waker } = self.publishers.remove(key);
        if outcome.is_some() {
            return (None, waker);
        }
        self.updates[update.index()] = None;
        (Some(update), waker)
    }
}
