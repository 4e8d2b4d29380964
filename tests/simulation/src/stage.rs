//! The stage: virtual time, the agenda of what is still to happen, and the record of what has.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::time::Duration;

use psrpc_engine::Time;

use crate::fault::Faults;
use crate::happening::Happening;
use crate::trace::Trace;

/// What nodes and bus have in common.
pub(crate) struct Stage {
    now: Time,
    agenda: BTreeMap<Entry, Happening>,
    entered: u64,
    /// Whether timers fire before or after all else that happens at the same moment.
    timers_first: bool,
    trace: Trace,
    pub(crate) faults: Faults,
    /// How often calls ended in each way.
    pub(crate) outcomes: BTreeMap<&'static str, u64>,
}

/// An entry of the agenda, by its place in it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Entry {
    at: Time,
    turn: Turn,
    order: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Turn {
    Early,
    Normal,
    Late,
}

impl Stage {
    pub(crate) fn new(faults: Faults, timers_first: bool, show: Option<fn(&str)>) -> Self {
        Self {
            now: Time::ZERO,
            agenda: BTreeMap::new(),
            entered: 0,
            timers_first,
            trace: Trace::new(show),
            faults,
            outcomes: BTreeMap::new(),
        }
    }

    /// The virtual time.
    pub(crate) fn now(&self) -> Time {
        self.now
    }

    pub(crate) fn after(&mut self, delay: Duration, happening: Happening) -> Entry {
        self.at(self.now + delay, happening)
    }

    pub(crate) fn at(&mut self, at: Time, happening: Happening) -> Entry {
        let turn = match happening {
            Happening::Tick(_) if self.timers_first => Turn::Early,
            Happening::Tick(_) => Turn::Late,
            _ => Turn::Normal,
        };
        let entry = Entry { at: at.max(self.now), turn, order: self.entered };
        self.entered += 1;
        self.agenda.insert(entry, happening);
        entry
    }

    pub(crate) fn strike(&mut self, entry: Entry) {
        self.agenda.remove(&entry);
    }

    /// Lets time pass until the next happening, if there is one until `end`.
    pub(crate) fn next(&mut self, end: Time) -> Option<Happening> {
        let next = self.agenda.first_entry().filter(|next| next.key().at <= end)?;
        self.now = next.key().at;
        Some(next.remove())
    }

    pub(crate) fn log(&mut self, who: impl Display, what: impl Display) {
        self.trace.line(self.now, who, what);
    }

    pub(crate) fn trace_hash(&self) -> u64 {
        self.trace.hash()
    }
}

impl Entry {
    pub(crate) fn at(self) -> Time {
        self.at
    }
}
