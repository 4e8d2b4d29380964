//! Tasks that wait for something.

use std::task::{Context, Waker};

use slab::Slab;

/// Puts the task in place of the one that waited before, and gives back what is to be dropped
/// without any lock.
pub(crate) fn replace(waiting: &mut Option<Waker>, cx: &Context<'_>) -> Option<Waker> {
    if waiting.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
        return None;
    }
    waiting.replace(cx.waker().clone())
}

/// Adds the task to those that are woken, once, however often it is polled.
pub(crate) fn wait(waiting: &mut Vec<Waker>, cx: &Context<'_>) {
    if !waiting.iter().any(|known| known.will_wake(cx.waker())) {
        waiting.push(cx.waker().clone());
    }
}

/// Tasks that wait for the same thing, each in a place of its own: one that gives up leaves nothing
/// behind.
#[derive(Default)]
pub(crate) struct Waiters {
    wakers: Slab<Waker>,
    /// How often they were woken, by which a place is known that is another's by now.
    rounds: u64,
}

/// The place of one that waits, if it has one.
#[derive(Default)]
pub(crate) struct Place(Option<(u64, usize)>);

impl Waiters {
    /// Puts the task into its place, and gives back what is to be dropped without any lock.
    pub(crate) fn wait(&mut self, place: &mut Place, cx: &Context<'_>) -> Option<Waker> {
        match self.find(place) {
            Some(key) if self.wakers[key].will_wake(cx.waker()) => None,
            Some(key) => Some(std::mem::replace(&mut self.wakers[key], cx.waker().clone())),
            None => {
                place.0 = Some((self.rounds, self.wakers.insert(cx.waker().clone())));
                None
            }
        }
    }

    /// The task does not wait any more; gives back what is to be dropped without any lock.
    pub(crate) fn leave(&mut self, place: &mut Place) -> Option<Waker> {
        let key = self.find(place);
        place.0 = None;
        key.map(|key| self.wakers.remove(key))
    }

    /// Those who wait, to be woken.
    pub(crate) fn take(&mut self) -> impl Iterator<Item = Waker> {
        self.rounds += 1;
        self.wakers.drain()
    }

    fn find(&self, place: &Place) -> Option<usize> {
        place.0.filter(|(round, _)| *round == self.rounds).map(|(_, key)| key)
    }
}

impl Place {
    pub(crate) fn is_taken(&self) -> bool {
        self.0.is_some()
    }
}
