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
pub(crate) struct WaiterKey(Option<(u64, usize)>);

impl Waiters {
    /// Puts the task into its place, and gives back what is to be dropped without any lock.
    pub(crate) fn wait(&mut self, key: &mut WaiterKey, cx: &Context<'_>) -> Option<Waker> {
        match self.find(key) {
            Some(slot) if self.wakers[slot].will_wake(cx.waker()) => None,
            Some(slot) => Some(std::mem::replace(&mut self.wakers[slot], cx.waker().clone())),
            None => {
                key.0 = Some((self.rounds, self.wakers.insert(cx.waker().clone())));
                None
            }
        }
    }

    /// The task does not wait any more; gives back what is to be dropped without any lock.
    pub(crate) fn remove(&mut self, key: &mut WaiterKey) -> Option<Waker> {
        let slot = self.find(key);
        key.0 = None;
        slot.map(|slot| self.wakers.remove(slot))
    }

    /// Those who wait, to be woken.
    pub(crate) fn take(&mut self) -> impl Iterator<Item = Waker> {
        self.rounds += 1;
        self.wakers.drain()
    }

    fn find(&self, key: &WaiterKey) -> Option<usize> {
        key.0.filter(|(round, _)| *round == self.rounds).map(|(_, slot)| slot)
    }
}

impl WaiterKey {
    pub(crate) fn is_registered(&self) -> bool {
        self.0.is_some()
    }
}
