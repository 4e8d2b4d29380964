//! The table of entries in flight, such as calls and requests. Each has an id on the wire, a state,
//! and usually a timer.

use psrpc_proto::Text;

use crate::core::budget::{Budget, Step};
use crate::core::handle::{Handles, RawHandle};
use crate::core::map::{HashKeys, Map};
use crate::core::time::Time;
use crate::core::timers::{TimerId, TimerKind, Timers};

/// Entries in flight, found by handle and by id.
///
/// [`settle`](Self::settle) removes an entry together with its timer and id, and returns its state
/// by value, so nothing settles twice.
pub(crate) struct InFlight<H, S> {
    entries: Handles<Entry<S>>,
    by_id: Map<RawHandle>,
    keys: HashKeys,
    handle: core::marker::PhantomData<H>,
}

/// Proof that an id is not in flight, required to insert an entry.
pub(crate) struct Vacancy {
    hash: u64,
}

/// An entry in flight.
pub(crate) struct Entry<S> {
    pub(crate) id: Text,
    pub(crate) state: S,
    hash: u64,
    timer: Option<TimerId>,
}

impl<H: Copy + From<RawHandle> + Into<RawHandle>, S> InFlight<H, S> {
    pub(crate) fn new(keys: HashKeys) -> Self {
        Self { entries: Handles::new(), by_id: Map::new(), keys, handle: core::marker::PhantomData }
    }

    /// Returns the handle that the next inserted entry will get.
    pub(crate) fn next(&self) -> H {
        self.entries.next().into()
    }

    /// Returns the proof that an id is not in flight, or `None` if it is.
    pub(crate) fn vacancy(&self, id: &Text) -> Option<Vacancy> {
        let hash = self.keys.hash(id.as_bytes());
        self.get_by_id(hash, id).is_none().then_some(Vacancy { hash })
    }

    /// Adds an entry.
    pub(crate) fn insert(&mut self, Vacancy { hash }: Vacancy, id: Text, timer: Option<TimerId>, state: S) {
        let handle = self.entries.insert(Entry { id, state, hash, timer });
        self.by_id.insert(hash, handle);
    }

    pub(crate) fn find(&self, id: &Text) -> Option<H> {
        if self.by_id.is_empty() {
            return None;
        }
        self.get_by_id(self.keys.hash(id.as_bytes()), id).map(H::from)
    }

    fn get_by_id(&self, hash: u64, id: &Text) -> Option<RawHandle> {
        let matches = |handle: &RawHandle| self.entries.get(*handle).is_some_and(|entry| entry.id == *id);
        self.by_id.get(hash, matches).copied()
    }

    pub(crate) fn get(&self, handle: H) -> Option<&Entry<S>> {
        self.entries.get(handle)
    }

    pub(crate) fn get_mut(&mut self, handle: H) -> Option<&mut Entry<S>> {
        self.entries.get_mut(handle)
    }

    /// Returns an entry and the hash keys.
    pub(crate) fn get_mut_with_keys(&mut self, handle: H) -> Option<(&mut Entry<S>, &HashKeys)> {
        Some((self.entries.get_mut(handle)?, &self.keys))
    }

    /// Returns the entry whose timer has fired, and clears the timer.
    pub(crate) fn timer_fired(&mut self, handle: H) -> Option<&mut Entry<S>> {
        let entry = self.entries.get_mut(handle)?;
        entry.timer = None;
        Some(entry)
    }

    /// Removes an entry with its timer and id. Inlined because the result is large to copy.
    #[inline(always)]
    pub(crate) fn settle<O: Copy>(&mut self, handle: H, timers: &mut Timers<O>) -> Option<(Text, S)> {
        let Entry { id, state, hash, timer } = self.entries.remove(handle)?;
        let raw = handle.into();
        self.by_id.remove(hash, |known| *known == raw);
        if let Some(timer) = timer {
            timers.disarm(timer);
        }
        Some((id, state))
    }

    /// Returns the number of entries: the larger of both tables' counts, so that a leak in either
    /// one shows.
    pub(crate) fn len(&self) -> usize {
        self.entries.len().max(self.by_id.len())
    }

    /// Returns the next entry from `cursor` on, in the order of their indices, and advances
    /// `cursor`.
    pub(crate) fn walk(&self, cursor: &mut usize, budget: &mut Budget) -> Step<H> {
        self.entries.walk(cursor, budget).map(H::from)
    }
}

impl<S> Entry<S> {
    /// Arms or moves the entry's timer.
    pub(crate) fn arm<O: Copy>(&mut self, timers: &mut Timers<O>, at: Time, kind: TimerKind, owner: O) {
        match self.timer {
            Some(timer) => timers.rearm(timer, at, kind),
            None => self.timer = Some(timers.arm(at, kind, owner)),
        }
    }

    /// Disarms the entry's timer.
    pub(crate) fn disarm<O: Copy>(&mut self, timers: &mut Timers<O>) {
        if let Some(timer) = self.timer.take() {
            timers.disarm(timer);
        }
    }
}
