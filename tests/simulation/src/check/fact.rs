//! Facts: what happened in a run, as far as the invariants speak of it.

use std::time::Duration;

use bytes::Bytes;
use psrpc_engine::proto::{ErrorResponse, Frame, MethodProperties, Text};
use psrpc_engine::{Failure, Reply, Time, WallTime};

/// Something that happened. Times are virtual, calls go by their numbers, servers by their ids: a server that comes
/// back comes back with another.
#[derive(Clone, Debug)]
pub enum Fact<'a> {
    /// Time has come this far.
    TimeIs(Time),
    /// A call was made; its number is the count of those before it.
    Called(Called),
    /// An engine published a frame. A request says in its payload which call it is of: `call 17`.
    Published(&'a Frame),
    /// A frame came to a server, undamaged.
    ServerHeard(&'a Text, &'a Frame),
    /// A frame came to a client, undamaged.
    ClientHeard(&'a Frame),
    /// A server's user elects to run a request without a grant.
    Elected {
        /// The server.
        server: &'a Text,
        /// The request.
        request: &'a Text,
    },
    /// A server was told to run the handler of a request.
    Ran(Run<'a>),
    /// A server's user answered a request, from its handler or before.
    Answered {
        /// The server.
        server: &'a Text,
        /// The request.
        request: &'a Text,
        /// The answer.
        result: Result<Bytes, ErrorResponse>,
    },
    /// A caller cancels a call.
    Canceled {
        /// The call.
        call: usize,
        /// Whether other things happen in the same step, which may have ended the call before.
        in_company: bool,
    },
    /// A client is closed.
    Closed {
        /// The client.
        client: usize,
    },
    /// A call has ended.
    Resolved {
        /// The call; `None` for one that nobody made.
        call: Option<usize>,
        /// How.
        outcome: &'a Result<Reply, Box<Failure>>,
    },
    /// A node has handled what happened, and all its outputs were taken.
    StepEnded,
    /// A node has handled a timeout, and all its outputs were taken. By its own clock.
    Ticked {
        /// The time that it was told.
        at: Time,
        /// The next timeout.
        next: Option<Time>,
    },
    /// What an engine still holds that should hold nothing.
    Left {
        /// Calls or requests in flight.
        in_flight: usize,
        /// Requests remembered.
        remembered: usize,
        /// The next timeout.
        timer: Option<Time>,
    },
}

/// A call that was made.
#[derive(Clone, Debug)]
pub struct Called {
    /// The client.
    pub client: usize,
    /// How its method finds a server.
    pub properties: MethodProperties,
    /// When it must be over.
    pub deadline: Time,
    /// The same by the client's wall clock.
    pub expiry: WallTime,
    /// Whether nothing stands in the way of its success.
    pub must_succeed: bool,
}

/// A handler that was started.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    /// Where.
    pub server: &'a Text,
    /// For which request.
    pub request: &'a Text,
    /// What the server's wall clock showed.
    pub wall: WallTime,
    /// How far it may be ahead.
    pub allowance: Duration,
}
