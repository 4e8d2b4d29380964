//! What a faulty bus did.

/// How often a [`FaultyBus`](crate::FaultyBus) did what, so that a test can tell that its faults
/// happened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Injected {
    /// Frames lost.
    pub dropped: u64,
    /// Frames late.
    pub delayed: u64,
    /// Copies made.
    pub duplicated: u64,
    /// Frames held back for others to overtake them.
    pub reordered: u64,
    /// Frames whose publishing failed, and deliveries at which a subscription was lost.
    pub failed: u64,
    /// Times that a frame was given back for want of room, while the bus was blocked or late frames
    /// waited for room.
    pub blocked: u64,
}
