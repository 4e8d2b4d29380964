//! The two sides of a stream: the client's, which opens it, and the server's.

use super::event::StreamEvent;
use super::sends::StreamTimer;
use crate::core::outputs::{CommonEvent, Outputs};

/// A side of a stream: [`ClientSide`](crate::ClientSide) or [`ServerSide`](crate::ServerSide). This
/// trait is sealed.
#[expect(private_bounds, reason = "the trait is sealed")]
pub trait Side: Parts {}

/// The types and rules of a side.
pub(crate) trait Parts {
    /// The events of the side's engine.
    type Event: CommonEvent + From<StreamEvent>;
    /// The owner of a timer of the side's engine.
    type Owner: Copy + From<StreamTimer>;
    /// The data that the side attaches to each stream.
    type Data;
    /// Whether an ended stream stays in the table until it is forgotten.
    const LINGERS: bool;
}

/// The outputs of the side's engine.
pub(crate) type SideOutputs<S> = Outputs<<S as Parts>::Event, <S as Parts>::Owner>;
