//! Counters of injected faults.

/// The number of faults that a [`FaultyBus`](crate::FaultyBus) has injected. Tests use it to check
/// that faults happened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Injected {
    /// Frames dropped.
    pub dropped: u64,
    /// Frames delayed.
    pub delayed: u64,
    /// Copies created.
    pub duplicated: u64,
    /// Frames held back to be overtaken.
    pub reordered: u64,
    /// Publishes and subscriptions that failed because of a [`Rule::fail`](crate::Rule::fail).
    pub failed: u64,
    /// Publishes refused because the bus was blocked, or because delayed frames were waiting for
    /// room.
    pub blocked: u64,
}
