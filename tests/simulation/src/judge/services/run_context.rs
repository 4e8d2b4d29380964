//! The properties of a run that its ledger depends on.

use std::fmt::Display;

use psrpc::Time;

use crate::fault::Fault;

/// A run whose users a [`Ledger`](super::ledger::Ledger) observes: a simulated one in virtual time,
/// or one on a real bus in real time.
pub trait RunContext: Send + Sync {
    /// Returns the time of the run.
    fn now(&self) -> Time;

    /// Returns the latest time at which a node may observe something that was due at `due`.
    fn latest_allowed(&self, node: usize, due: Time) -> Time;

    /// Returns `true` if the bus may have reported an error for a frame that it has published.
    fn bus_may_lie(&self) -> bool;

    /// Counts a fault.
    fn count(&self, fault: Fault);

    /// Adds a line to the trace of the run.
    fn log(&self, source: &str, text: &dyn Display);
}
