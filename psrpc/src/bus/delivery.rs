//! Deliveries: what a bus hands to a subscription.

use psrpc_engine::BusError;
use psrpc_engine::proto::Frame;

/// What a bus delivers on a subscription.
#[derive(Clone, Debug)]
pub enum Delivery {
    /// The subscription is live, for the first time or again.
    Live,
    /// A frame.
    Frame(Frame),
    /// A frame for a channel that nobody here subscribed to, which the bus handed to this queue
    /// subscription's member of the queue, and to no other.
    Untaken(Frame),
    /// Frames may be missing here; how many, where that is known.
    Gap(Option<u64>),
    /// A live subscription is interrupted: frames may be lost until it is [live](Self::Live) again.
    Interrupted(BusError),
    /// The subscription has ended; why, if that was not asked for. Nothing comes after it.
    Ended(Option<BusError>),
}
