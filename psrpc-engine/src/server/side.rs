//! The owners of a server's timers, and the server's side of streams.

use crate::core::dedup::BucketKey;
use crate::core::handle::{RegistrationHandle, RequestHandle, UpdateHandle};
use crate::core::outputs;
use crate::event::ServerEvent;
use crate::stream::Streams;
use crate::stream::sends::StreamTimer;
use crate::stream::side::{Parts, Side};

/// The server's outputs, timers and counters.
pub(super) type Outputs = outputs::Outputs<ServerEvent, Owner>;

/// The owner of a server's timer.
#[derive(Clone, Copy)]
pub(crate) enum Owner {
    Request(RequestHandle),
    Bucket(BucketKey),
    Stream(StreamTimer),
    Update(UpdateHandle),
    Drain,
    Linger,
    /// The queued endings continue.
    Ending,
}

impl From<StreamTimer> for Owner {
    fn from(timer: StreamTimer) -> Self {
        Owner::Stream(timer)
    }
}

/// The server's side of streams.
#[derive(Clone, Copy, Debug)]
pub enum ServerSide {}

impl Side for ServerSide {}

impl Parts for ServerSide {
    type Event = ServerEvent;
    type Owner = Owner;
    type Data = ServedBy;
    const LINGERS: bool = true;
}

/// The streams of a server, including ended ones whose handlers are not done.
pub(super) type ServerStreams = Streams<ServerSide>;

/// The registration that a stream of a server belongs to.
pub(crate) struct ServedBy {
    /// The registration whose handler serves the stream.
    pub(super) registration: RegistrationHandle,
    /// The stream's index among the streams of the registration.
    pub(super) index: usize,
}
