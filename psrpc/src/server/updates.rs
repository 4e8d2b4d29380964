//! The updates of one server that somebody waits for.

use std::task::{Context, Poll, Waker};

use psrpc_engine::{Failure, UpdateHandle};
use slab::Slab;

use crate::waiting;

/// How an update ended.
pub(super) type Outcome = Result<Option<u64>, Box<Failure>>;

/// The updates of one server that somebody waits for.
#[derive(Default)]
pub(super) struct PublishTable {
    publishers: Slab<Publisher>,
    /// The publishers of updates on their way, by the index of their handles.
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

    /// An update has ended: gives who waits for it.
    pub(super) fn ended(&mut self, update: UpdateHandle, outcome: Outcome) -> Option<Waker> {
        // Nobody waits for an update that was dropped.
        let publisher = self.updates.get_mut(update.index())?.take()?;
        let publisher = &mut self.publishers[publisher];
        publisher.outcome = Some(outcome);
        publisher.waker.take()
    }

    /// How an update ended, once, and what is to be dropped without the lock.
    pub(super) fn poll(&mut self, key: usize, cx: &Context<'_>) -> (Poll<Outcome>, Option<Waker>) {
        let publisher = &mut self.publishers[key];
        match publisher.outcome.take() {
            Some(outcome) => (Poll::Ready(outcome), self.publishers.remove(key).waker),
            None => (Poll::Pending, waiting::replace(&mut publisher.waker, cx)),
        }
    }

    /// Nobody waits for an update any more: gives it, if it is still on its way, and what is to be
    /// dropped without the lock.
    pub(super) fn remove(&mut self, key: usize) -> (Option<UpdateHandle>, Option<Waker>) {
        let Publisher { update, outcome, waker } = self.publishers.remove(key);
        if outcome.is_some() {
            return (None, waker);
        }
        self.updates[update.index()] = None;
        (Some(update), waker)
    }
}
