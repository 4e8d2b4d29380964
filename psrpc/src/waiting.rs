//! Lists of tasks to wake.

use std::task::{Context, Waker};

use slab::Slab;

/// Registers the task in place of the previous one. Returns the previous waker, to drop after all
/// locks are released.
pub(crate) fn replace(slot: &mut Option<Waker>, cx: &Context<'_>) -> Option<Waker> {
    if slot.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
        return None;
    }
    slot.replace(cx.waker().clone())
}

/// Adds the task to the list, unless it is already in it.
pub(crate) fn wait(wakers: &mut Vec<Waker>, cx: &Context<'_>) {
    if !wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
        wakers.push(cx.waker().clone());
    }
}

/// Tasks that wait for the same event. A task that gives up can remove its waker.
#[derive(Default)]
pub(crate) struct Waiters {
    wakers: Slab<Waker>,
    /// The number of times that the tasks were woken. Keys of earlier rounds are stale.
    rounds: u64,
}

/// The key of a task in [`Waiters`], if it is registered.
#[derive(Default)]
pub(crate) struct WaiterKey(Option<(u64, usize)>);

impl Waiters {
    /// Registers the task. Returns a waker to drop after all locks are released.
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

    /// Removes the task. Returns a waker to drop after all locks are released.
    pub(crate) fn remove(&mut self, key: &mut WaiterKey) -> Option<Waker> {
        let slot = self.find(key);
        key.0 = None;
        slot.map(|slot| self.wakers.remove(slot))
    }

    /// Removes and returns all tasks, to be woken.
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
