//! The scene of a run: the virtual time, the queue of future events, and the trace of past ones.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt::Display;
use std::time::Duration;

use psrpc_engine::Time;
use slab::Slab;

use crate::fault::Faults;
use crate::trace::{Kind, Show, Trace, TraceHash};

/// The state that everything in a run shares. `E` is the type of the events.
pub(crate) struct Scene<H> {
    now: Time,
    agenda: BinaryHeap<Reverse<Entry>>,
    /// The events themselves. A canceled event is removed here; its entry in the queue stays and is
    /// skipped.
    happenings: Slab<(u64, H)>,
    entered: u64,
    /// Whether timers fire before or after other events at the same moment.
    timers_first: bool,
    trace: Trace,
    pub(crate) faults: Faults,
}

/// A handle to a scheduled event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Entry {
    at: Time,
    turn: Turn,
    order: u64,
    place: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Turn {
    Early,
    Normal,
    Late,
}

impl<H> Scene<H> {
    pub(crate) fn new(faults: Faults, timers_first: bool, show: Option<Show>) -> Self {
        Self {
            now: Time::ZERO,
            agenda: BinaryHeap::new(),
            happenings: Slab::new(),
            entered: 0,
            timers_first,
            trace: Trace::new(show),
            faults,
        }
    }

    /// Returns the virtual time.
    pub(crate) fn now(&self) -> Time {
        self.now
    }

    pub(crate) fn after(&mut self, delay: Duration, happening: impl Into<H>) -> Entry {
        self.at(self.now + delay, happening)
    }

    pub(crate) fn at(&mut self, at: Time, happening: impl Into<H>) -> Entry {
        self.enter(at, Turn::Normal, happening.into())
    }

    /// Schedules a timer, which fires before or after all other events at its moment.
    pub(crate) fn timer(&mut self, at: Time, happening: impl Into<H>) -> Entry {
        let turn = if self.timers_first { Turn::Early } else { Turn::Late };
        self.enter(at, turn, happening.into())
    }

    fn enter(&mut self, at: Time, turn: Turn, happening: H) -> Entry {
        let order = self.entered;
        self.entered += 1;
        let place = self.happenings.insert((order, happening));
        let entry = Entry { at: at.max(self.now), turn, order, place };
        self.agenda.push(Reverse(entry));
        entry
    }

    /// Cancels an event and returns it, or `None` if it has happened or was canceled.
    pub(crate) fn strike(&mut self, entry: Entry) -> Option<H> {
        let (order, _) = self.happenings.get(entry.place)?;
        (*order == entry.order).then(|| self.happenings.remove(entry.place).1)
    }

    /// Advances the time to the next event and returns it, or `None` if none is due by `end`.
    pub(crate) fn next(&mut self, end: Time) -> Option<H> {
        while let Some(Reverse(next)) = self.agenda.peek().copied().filter(|Reverse(next)| next.at <= end) {
            self.agenda.pop();
            if let Some(happening) = self.strike(next) {
                self.now = next.at;
                self.hash().word(next.at.as_nanos());
                return Some(happening);
            }
        }
        None
    }

    /// Returns `true` if any event is scheduled.
    pub(crate) fn has_plans(&self) -> bool {
        !self.happenings.is_empty()
    }

    /// Removes all events and returns them.
    pub(crate) fn clear(&mut self) -> Vec<H> {
        self.agenda.clear();
        self.happenings.drain().map(|(_, happening)| happening).collect()
    }

    /// Shows a line, if the trace is shown.
    pub(crate) fn log(&mut self, who: impl Display, what: impl Display) {
        self.log_as(|| Kind::Note, who, what);
    }

    /// Shows a line of kind [`LineKind::Detail`], if the trace is shown.
    pub(crate) fn aside(&mut self, who: impl Display, what: impl Display) {
        self.log_as(|| Kind::Aside, who, what);
    }

    /// Shows a line of the given kind, if the trace is shown.
    pub(crate) fn log_as(&mut self, kind: impl FnOnce() -> Kind, who: impl Display, what: impl Display) {
        self.trace.line(self.now, who, what, kind);
    }

    /// Returns the hash of the trace, to add to it.
    pub(crate) fn hash(&mut self) -> &mut TraceHash {
        self.trace.hash()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    fn scene(timers_first: bool) -> Scene<&'static str> {
        Scene::new(Faults::new(&mut Rng::new(1)), timers_first, None)
    }

    fn play(mut scene: Scene<&'static str>, end: u64) -> Vec<&'static str> {
        std::iter::from_fn(|| scene.next(Time::from_nanos(end))).collect()
    }

    #[test]
    fn happenings_come_by_time_then_by_turn_then_in_the_order_in_which_they_were_entered() {
        let at = |nanos| Time::from_nanos(nanos);
        for (timers_first, expected) in [(true, ["a", "timer", "b", "c"]), (false, ["a", "b", "c", "timer"])]
        {
            let mut scene = scene(timers_first);
            scene.at(at(2), "b");
            scene.timer(at(2), "timer");
            scene.at(at(2), "c");
            scene.at(at(1), "a");
            scene.at(at(9), "beyond the end");
            assert_eq!(play(scene, 5), expected);
        }
    }

    #[test]
    fn what_was_struck_does_not_happen_nor_does_striking_it_again_strike_another() {
        let mut scene = scene(false);
        let first = scene.at(Time::from_nanos(1), "first");
        assert_eq!(scene.strike(first), Some("first"));
        scene.at(Time::from_nanos(1), "second");
        assert_eq!(scene.strike(first), None);
        assert_eq!(play(scene, 5), ["second"]);
    }
}
