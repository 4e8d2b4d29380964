//! The timers of an engine, in one ordered queue.

use alloc::vec::Vec;
use core::time::Duration;

use slab::Slab;

use crate::core::budget::Due;
use crate::core::time::Time;

/// How late a timer may fire. Runtimes keep time in steps of a millisecond.
pub(crate) const GRANULARITY: Duration = Duration::from_millis(1);

/// Why a timer fires.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TimerKind {
    /// The affinity timeout of a call is over.
    AffinityTimeout,
    /// The short-circuit timeout of a call is over.
    ShortCircuit,
    /// A request that reached nobody is published again.
    Republish,
    /// A call, a stream message or an update reaches its deadline.
    Deadline,
    /// A request expires, or stream messages that are held back.
    Expiry,
    /// Remembered requests or stream messages can be forgotten.
    Forget,
    /// A stream may have been silent for its idle timeout.
    Idle,
    /// A drain or a close stops waiting for the bus.
    Drain,
    /// A drain stops waiting for stream handlers.
    Linger,
    /// A close, drain or deregistration continues, because one method call ends a bounded number of
    /// entries.
    Close,
}

/// When the next timer fires, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeout {
    /// The time at which it fires.
    pub at: Time,
    /// The reason why it fires.
    pub kind: TimerKind,
}

/// An armed timer. Invalid once the timer has fired or was disarmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TimerId(usize);

/// The timers of one engine, each with an `owner` that is returned when it fires.
///
/// A 4-ary heap in which each timer knows its position, so that a timer can be moved or disarmed in
/// logarithmic time. Deadlines mostly come in order, so arming one usually takes a single
/// comparison.
pub(crate) struct Timers<O> {
    timers: Slab<Timer<O>>,
    heap: Vec<Node>,
}

struct Timer<O> {
    owner: O,
    kind: TimerKind,
    position: usize,
}

/// A node of the heap: when it fires, and which timer.
#[derive(Clone, Copy)]
struct Node {
    at: Time,
    timer: usize,
}

impl<O: Copy> Timers<O> {
    pub(crate) const fn new() -> Self {
        Self { timers: Slab::new(), heap: Vec::new() }
    }

    pub(crate) fn arm(&mut self, at: Time, kind: TimerKind, owner: O) -> TimerId {
        let position = self.heap.len();
        let timer = self.timers.insert(Timer { owner, kind, position });
        self.heap.push(Node { at, timer });
        self.sift_up(position);
        TimerId(timer)
    }

    /// Moves an armed timer.
    pub(crate) fn rearm(&mut self, TimerId(timer): TimerId, at: Time, kind: TimerKind) {
        let Timer { kind: old, position, .. } = &mut self.timers[timer];
        *old = kind;
        let position = *position;
        self.heap[position].at = at;
        self.sift(position);
    }

    /// Disarms an armed timer, and returns its owner.
    pub(crate) fn disarm(&mut self, TimerId(timer): TimerId) -> O {
        let Timer { owner, position, .. } = self.timers.remove(timer);
        self.heap.swap_remove(position);
        if position < self.heap.len() {
            self.record_position(position);
            self.sift(position);
        }
        owner
    }

    /// Disarms the next timer that is due, and returns its owner.
    pub(crate) fn fire(&mut self, now: Time) -> Option<(O, TimerKind)> {
        let next = self.heap.first().filter(|next| next.at <= now)?;
        let kind = self.timers[next.timer].kind;
        Some((self.disarm(TimerId(next.timer)), kind))
    }

    /// Returns [`Due::More`] if a timer is due.
    pub(crate) fn due(&self, now: Time) -> Due {
        if self.heap.first().is_some_and(|next| next.at <= now) { Due::More } else { Due::Nothing }
    }

    pub(crate) fn next(&self) -> Option<Timeout> {
        self.heap.first().map(|next| Timeout { at: next.at, kind: self.timers[next.timer].kind })
    }

    fn sift(&mut self, position: usize) {
        let position = self.sift_up(position);
        self.sift_down(position);
    }

    /// Moves a node up while it is earlier than its parent.
    fn sift_up(&mut self, mut position: usize) -> usize {
        while position > 0 {
            let parent = (position - 1) / 4;
            if self.heap[parent].at <= self.heap[position].at {
                break;
            }
            self.swap(position, parent);
            position = parent;
        }
        position
    }

    /// Moves a node down while a child is earlier.
    fn sift_down(&mut self, mut position: usize) {
        loop {
            let children = 4 * position + 1..(4 * position + 5).min(self.heap.len());
            let Some(first) = children.min_by_key(|child| self.heap[*child].at) else { return };
            if self.heap[position].at <= self.heap[first].at {
                return;
            }
            self.swap(position, first);
            position = first;
        }
    }

    fn swap(&mut self, a: usize, b: usize) {
        self.heap.swap(a, b);
        self.record_position(a);
        self.record_position(b);
    }

    fn record_position(&mut self, position: usize) {
        self.timers[self.heap[position].timer].position = position;
    }
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn at(nanos: u64) -> Time {
        Time::from_nanos(nanos)
    }

    #[derive(Clone, Debug)]
    enum Step {
        Arm(u64),
        Rearm(prop::sample::Index, u64),
        Disarm(prop::sample::Index),
        Fire(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            3 => (0..100u64).prop_map(Step::Arm),
            1 => (any::<prop::sample::Index>(), 0..100u64).prop_map(|(which, at)| Step::Rearm(which, at)),
            1 => any::<prop::sample::Index>().prop_map(Step::Disarm),
            1 => (0..100u64).prop_map(Step::Fire),
        ];
        proptest::collection::vec(step, 0..200)
    }

    proptest! {
        #[test]
        fn timers_fire_in_order_and_only_when_due(steps in steps()) {
            let mut timers = Timers::new();
            // The armed timers: (time, owner) to timer id.
            let mut model = BTreeMap::new();
            for (owner, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Arm(nanos) => {
                        let id = timers.arm(at(nanos), TimerKind::Deadline, owner);
                        model.insert((at(nanos), owner), id);
                    }
                    Step::Rearm(which, nanos) if !model.is_empty() => {
                        let (key, id) = model.iter().nth(which.index(model.len())).map(|(k, v)| (*k, *v)).unwrap();
                        model.remove(&key);
                        timers.rearm(id, at(nanos), TimerKind::Expiry);
                        model.insert((at(nanos), key.1), id);
                    }
                    Step::Disarm(which) if !model.is_empty() => {
                        let (key, id) = model.iter().nth(which.index(model.len())).map(|(k, v)| (*k, *v)).unwrap();
                        model.remove(&key);
                        prop_assert_eq!(timers.disarm(id), key.1);
                    }
                    Step::Rearm(..) | Step::Disarm(_) => {}
                    Step::Fire(nanos) => {
                        while let Some((owner, _)) = timers.fire(at(nanos)) {
                            let due: Vec<_> = model.keys().copied().filter(|key| key.1 == owner).collect();
                            prop_assert_eq!(due.len(), 1);
                            prop_assert_eq!(due[0].0, model.keys().next().unwrap().0, "the earliest first");
                            prop_assert!(due[0].0 <= at(nanos));
                            model.remove(&due[0]);
                        }
                    }
                }
                let next = timers.next().map(|next| next.at);
                prop_assert_eq!(next, model.keys().next().map(|key| key.0));
                prop_assert_eq!(timers.timers.len(), model.len());
            }
        }
    }
}
