//! The invariants, and a violation of one.

use std::fmt;

/// An invariant, by the number that the project gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Invariant {
    /// Every call resolves exactly once, no later than its deadline.
    I1,
    /// A claimed request runs on at most one server, any request at most once per server
    /// incarnation.
    I2,
    /// No handler starts at or past the expiry plus the allowance, by its server's wall clock.
    I3,
    /// A claimed call canceled before it was granted or announced runs nowhere, and its caller sees
    /// `canceled`.
    I4,
    /// Only the selected server's response is accepted, as that server gave it; of a multi call one
    /// of each server.
    I5,
    /// An error never decodes as success, nor success as an error.
    I6,
    /// A message of a stream is delivered at most once, in order, and a send that resolved was
    /// delivered.
    I7,
    /// A stream has one handler, and both sides see its end.
    I8,
    /// In the end every table is empty and no timer armed.
    I9,
    /// No table holds more than its limit.
    I10,
    /// No frame makes anything panic, nor touches anything but the call that it names.
    I11,
    /// What finds no room is visible.
    I12,
    /// A subscription that was confirmed is live.
    I13,
    /// A server that shuts down loses nothing that it accepted, and ends in time.
    I14,
    /// Closing a client resolves its pending calls and streams at once.
    I15,
    /// Once faults stop, a fresh call succeeds.
    I16,
    /// The same seed gives the same trace.
    I17,
    /// After a timeout was handled, the next one is later.
    I18,
}

/// A violated invariant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub invariant: Invariant,
    /// What happened.
    pub what: String,
}

impl Violation {
    /// The same, with where it happened.
    pub(crate) fn at(self, place: impl fmt::Display) -> Self {
        Self { what: format!("{place}: {}", self.what), ..self }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.invariant, self.what)
    }
}

impl Invariant {
    /// The violation of this invariant by `what`.
    pub(crate) fn violated(self, what: impl Into<String>) -> Checked {
        Err(Violation { invariant: self, what: what.into() })
    }
}

/// What every check gives.
pub type Checked = Result<(), Violation>;
