//! Items that a bus delivers on a subscription.

use psrpc_engine::BusError;
use psrpc_engine::proto::Frame;

/// An item that a bus delivers on a subscription.
#[derive(Clone, Debug)]
pub enum Delivery {
    /// The subscription became live, for the first time or again.
    Live,
    /// A frame.
    Frame(Frame),
    /// A frame for a channel that this process does not subscribe to. The bus handed it to this
    /// member of a shared queue, and to no other member.
    Misrouted(Frame),
    /// Frames may be missing here. Holds their number, if the bus knows it.
    Gap(Option<u64>),
    /// A live subscription was interrupted. Frames may be lost until it is [live](Self::Live)
    /// again.
    Interrupted(BusError),
    /// The subscription ended. Holds the cause, unless the subscriber asked for the end. Nothing
    /// comes after it.
    Ended(Option<BusError>),
}
