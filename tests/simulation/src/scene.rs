//! The scene of a run: the virtual time, the queue of future events, and the trace of past ones.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt::Display;
use std::time::Duration;

use psrpc_engine::Time;
use slab::Slab;

use crate::fault::Faults;
use crate::trace::{LineKind, Show, Trace, TraceHash};

/// The state that everything in a run shares. `E` is the type of the events.
pub(crate) struct Scene<E> {
    now: Time,
    queue: BinaryHeap<Reverse<ScheduledEvent>>,
    /// The events themselves. A canceled event is removed here; its entry in the queue stays and is
    /// skipped.
    events: Slab<(u64, E)>,
    scheduled: u64,
    /// Whether timers fire before or after other events at the same moment.
    timers_first: bool,
    trace: Trace,
    pub(crate) faults: Faults,
}

/// A handle to a scheduled event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ScheduledEvent {
    at: Time,
    priority: Priority,
    order: u64,
    slot: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Priority {
    Early,
    Normal,
    Late,
}

impl<E> Scene<E> {
    pub(crate) fn new(faults: Faults, timers_first: bool, show: Option<Show>) -> Self {
        Self {
            now: Time::ZERO,
            queue: BinaryHeap::new(),
            events: Slab::new(),
            scheduled: 0,
            timers_first,
            trace: Trace::new(show),
            faults,
        }
    }

    /// Returns the virtual time.
    pub(crate) fn now(&self) -> Time {
        self.now
    }

    pub(crate) fn schedule_after(&mut self, delay: Duration, event: impl Into<E>) -> ScheduledEvent {
        self.schedule_at(self.now + delay, event)
    }

    pub(crate) fn schedule_at(&mut self, at: Time, event: impl Into<E>) -> ScheduledEvent {
        self.schedule(at, Priority::Normal, event.into())
    }

    /// Schedules a timer, which fires before or after all other events at its moment.
    pub(crate) fn schedule_timer(&mut self, at: Time, event: impl Into<E>) -> ScheduledEvent {
        let priority = if self.timers_first { Priority::Early } else { Priority::Late };
        self.schedule(at, priority, event.into())
    }

    fn schedule(&mut self, at: Time, priority: Priority, event: E) -> ScheduledEvent {
        let order = self.scheduled;
        self.scheduled += 1;
        let slot = self.events.insert((order, event));
        let entry = ScheduledEvent { at: at.max(self.now), priority, order, slot };
        self.queue.push(Reverse(entry));
        entry
    }

    /// Cancels an event and returns it, or `None` if it has happened or was canceled.
    pub(crate) fn cancel(&mut self, entry: ScheduledEvent) -> Option<E> {
        let (order, _) = self.events.get(entry.slot)?;
        (*order == entry.order).then(|| self.events.remove(entry.slot).1)
    }

    /// Advances the time to the next event and returns it, or `None` if none is due by `end`.
    pub(crate) fn next_event(&mut self, end: Time) -> Option<E> {
        while let Some(Reverse(next)) = self.queue.peek().copied().filter(|Reverse(next)| next.at <= end) {
            self.queue.pop();
            if let Some(event) = self.cancel(next) {
                self.now = next.at;
                self.hash().word(next.at.as_nanos());
                return Some(event);
            }
        }
        None
    }

    /// Returns `true` if any event is scheduled.
    pub(crate) fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// Removes all events and returns them.
    pub(crate) fn clear(&mut self) -> Vec<E> {
        self.queue.clear();
        self.events.drain().map(|(_, event)| event).collect()
    }

    /// Shows a line, if the trace is shown.
    pub(crate) fn log(&mut self, source: impl Display, text: impl Display) {
        self.log_as(|| LineKind::Note, source, text);
    }

    /// Shows a line of kind [`LineKind::Detail`], if the trace is shown.
    pub(crate) fn log_detail(&mut self, source: impl Display, text: impl Display) {
        self.log_as(|| LineKind::Detail, source, text);
    }

    /// Shows a line of the given kind, if the trace is shown.
    pub(crate) fn log_as(
        &mut self,
        kind: impl FnOnce() -> LineKind,
        source: impl Display,
        text: impl Display,
    ) {
        self.trace.line(self.now, source, text, kind);
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
        std::iter::from_fn(|| scene.next_event(Time::from_nanos(end))).collect()
    }

    #[test]
    fn events_come_by_time_then_by_priority_then_in_the_order_in_which_they_were_scheduled() {
        let at = |nanos| Time::from_nanos(nanos);
        for (timers_first, expected) in [(true, ["a", "timer", "b", "c"]), (false, ["a", "b", "c", "timer"])]
        {
            let mut scene = scene(timers_first);
            scene.schedule_at(at(2), "b");
            scene.schedule_timer(at(2), "timer");
            scene.schedule_at(at(2), "c");
            scene.schedule_at(at(1), "a");
            scene.schedule_at(at(9), "beyond the end");
            assert_eq!(play(scene, 5), expected);
        }
    }

    #[test]
    fn a_canceled_event_does_not_happen_and_canceling_it_again_cancels_no_other() {
        let mut scene = scene(false);
        let first = scene.schedule_at(Time::from_nanos(1), "first");
        assert_eq!(scene.cancel(first), Some("first"));
        scene.schedule_at(Time::from_nanos(1), "second");
        assert_eq!(scene.cancel(first), None);
        assert_eq!(play(scene, 5), ["second"]);
    }
}
