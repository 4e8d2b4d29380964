//! The invariants, and a violation of one.

use std::fmt;

/// An invariant, by its number in docs/INVARIANTS.md.
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
    /// Only the selected server's response is accepted, as that server sent it. A multi call
    /// accepts one response of each server.
    I5,
    /// An error never decodes as success, nor success as an error.
    I6,
    /// A message of a stream is delivered at most once, in order, and a send that resolved was
    /// delivered.
    I7,
    /// A stream has one handler, and both sides see its end.
    I8,
    /// At the end every table is empty and no timer is armed.
    I9,
    /// No table holds more than its limit.
    I10,
    /// No frame causes a panic or affects any call but its own.
    I11,
    /// No full table or queue drops anything silently.
    I12,
    /// A confirmed subscription is live.
    I13,
    /// A server that shuts down loses nothing that it accepted, and ends in time.
    I14,
    /// Closing a client resolves its pending calls and streams at once.
    I15,
    /// After faults stop, a fresh call succeeds.
    I16,
    /// The same seed gives the same trace.
    I17,
    /// After a timeout was handled, the next one is later.
    I18,
}

/// A violated invariant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The invariant.
    pub invariant: Invariant,
    /// What happened.
    pub what: String,
}

impl Violation {
    /// Adds the place to the description.
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
    /// Returns the violation of this invariant, with a description.
    pub fn violated(self, what: impl Into<String>) -> Checked {
        Err(Violation { invariant: self, what: what.into() })
    }
}

/// The result of a check.
pub type Checked = Result<(), Violation>;
