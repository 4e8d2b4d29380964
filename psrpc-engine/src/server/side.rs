//! What the timers of a server are for, and its side of streams.

use crate::core::dedup::BucketKey;
use crate::core::handle::{RegistrationHandle, RequestHandle, UpdateHandle};
use crate::core::outputs;
use crate::event::ServerEvent;
use crate::stream::Streams;
use crate::stream::sends::StreamTimer;
use crate::stream::side::{Parts, Side};

/// What the outputs of a server are.
pub(super) type Outputs = outputs::Outputs<ServerEvent, Owner>;

/// What a timer of a server is for.
#[derive(Clone, Copy)]
pub(crate) enum Owner {
    Request(RequestHandle),
    Bucket(BucketKey),
    Stream(StreamTimer),
    Update(UpdateHandle),
    Drain,
    Linger,
    /// What is to be ended goes on.
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

/// The streams of a server, those whose handlers are not done yet included.
pub(super) type ServerStreams = Streams<ServerSide>;

/// Which handler a stream of a server has.
pub(crate) struct ServedBy {
    /// The registration whose handler it is.
    pub(super) registration: RegistrationHandle,
    /// The stream's place among those of the registration.
    pub(super) place: usize,
}
