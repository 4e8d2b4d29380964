//! The sides of streams: the client's, which opens them, and the server's.

use super::event::StreamEvent;
use super::sends::StreamTimer;
use crate::core::outputs::{CommonEvent, Outputs};

/// A side of streams: [`ClientSide`](crate::ClientSide) or [`ServerSide`](crate::ServerSide). There
/// is no other.
#[expect(private_bounds, reason = "nobody else can implement it")]
pub trait Side: Parts {}

/// What streams need to know of a side.
pub(crate) trait Parts {
    /// What its engine tells the layer above.
    type Event: CommonEvent + From<StreamEvent>;
    /// What a timer of its engine is for.
    type Owner: Copy + From<StreamTimer>;
    /// What the side holds of its own with each stream.
    type Data;
    /// Whether a stream stays in the table when it ends, until it is forgotten.
    const LINGERS: bool;
}

/// The outputs of the engine that a side belongs to.
pub(crate) type SideOutputs<S> = Outputs<<S as Parts>::Event, <S as Parts>::Owner>;
