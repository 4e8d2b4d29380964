//! Facts: what happened in a run, as far as the invariants speak of it.

use std::time::Duration;

use bytes::Bytes;
use psrpc_engine::proto::{ErrorResponse, Frame, Text};
use psrpc_engine::{Failure, Reply, Time, WallTime};

use super::selection_rules::SelectionRules;
use crate::node_id::NodeId;

/// Something that happened. Times are virtual. What users ask of engines goes by numbers, counted
/// from 0 in the order in which it was asked for; a stream by the number of the call that opens it.
#[derive(Clone, Debug)]
pub enum Fact<'a> {
    /// Time has come this far.
    TimeIs(Time),
    /// Something was asked for that must come to an end.
    Asked(Asked),
    /// An engine published a frame. What it is about it says by a number: a request in its payload
    /// (`call 17`), an opening of a stream in its metadata (`call`: `17`).
    Published {
        /// Who.
        by: NodeId,
        /// What.
        frame: &'a Frame,
        /// What its monotonic clock shows.
        now: Time,
        /// What that showed when it last was held up: by a full bus, or by a pause.
        stuck: Option<Time>,
    },
    /// The bus did not take a frame, and its publisher hears so.
    NotTaken {
        /// Who.
        by: NodeId,
        /// What.
        frame: &'a Frame,
    },
    /// A frame came to a server, undamaged; what its monotonic clock shows.
    ServerHeard(Server<'a>, &'a Frame, Time),
    /// A frame came to a client, undamaged; what its monotonic clock shows.
    ClientHeard(NodeId, &'a Frame, Time),
    /// A server's user elects to run a request without a grant.
    Elected {
        /// The server.
        server: Server<'a>,
        /// The request.
        request: &'a Text,
    },
    /// A server was told to run the handler of a request, or of the stream that it opens.
    Ran(Run<'a>),
    /// A server's user answered a request, from its handler or before.
    Answered {
        /// The server.
        server: Server<'a>,
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
    /// Nobody waits for the end of something any more.
    GivenUp {
        /// What.
        number: usize,
    },
    /// A client is closed by its user.
    Closed {
        /// The client.
        client: NodeId,
    },
    /// A node is gone.
    Crashed(NodeId),
    /// A node does nothing for a while.
    Paused {
        /// The node.
        node: NodeId,
        /// Until when.
        until: Time,
    },
    /// A call has ended.
    Resolved {
        /// The call; `None` for one that nobody made.
        call: Option<usize>,
        /// How.
        outcome: &'a Result<Reply, Box<Failure>>,
    },
    /// A server's answer to a multi call came out.
    Answer {
        /// The call; `None` for one that nobody made.
        call: Option<usize>,
        /// Who answers.
        server_id: &'a Text,
        /// What.
        result: &'a Result<Bytes, ErrorResponse>,
    },
    /// A call that opens a stream, a multi call, a send or the publishing of an update has ended.
    Ended {
        /// What; `None` for what nobody asked for.
        number: Option<usize>,
        /// How.
        outcome: Result<(), &'a Failure>,
    },
    /// A message of a stream came out.
    Message {
        /// Where.
        at: NodeId,
        /// The stream.
        stream: usize,
        /// What.
        payload: &'a Bytes,
    },
    /// The consumer of a message of a stream has it.
    Accepted {
        /// Where.
        at: NodeId,
        /// The send, by its number.
        message: usize,
    },
    /// A stream has ended on one side.
    StreamEnded {
        /// Where.
        at: NodeId,
        /// The stream.
        stream: usize,
        /// Why.
        cause: &'a Failure,
    },
    /// An update came out.
    Update {
        /// Where.
        at: NodeId,
        /// What.
        payload: &'a Bytes,
    },
    /// From here on nothing goes wrong, and what went wrong before is over.
    Calm,
    /// A node has handled what happened, and all its outputs were taken.
    StepEnded,
    /// A node has handled a timeout, and all its outputs were taken. By its own clock.
    Ticked {
        /// The time that it was told.
        at: Time,
        /// The next timeout.
        next: Option<Time>,
    },
    /// What an engine holds.
    Holds(&'a [Held]),
    /// What an engine still holds that should hold nothing.
    Left {
        /// How much of what.
        held: &'a [Held],
        /// The next timeout.
        timer: Option<Time>,
    },
}

/// How much an engine holds of something, and may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Of what.
    pub what: &'static str,
    /// How much.
    pub count: usize,
    /// How much at most.
    pub limit: usize,
}

/// A server, in one of its lives: one that comes back after a crash may have the id that it had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Server<'a> {
    /// Its id on the wire.
    pub id: &'a Text,
    /// Which of all servers of the run.
    pub life: usize,
}

/// Something that was asked for.
#[derive(Clone, Debug)]
pub struct Asked {
    /// By the user of which node.
    pub by: NodeId,
    /// What.
    pub what: What,
    /// When it must be over.
    pub deadline: Time,
    /// How much later it may be over, since its caller may be asked to choose a server at the
    /// deadline.
    pub grace: Duration,
    /// Whether nothing stands in the way of its success.
    pub must_succeed: bool,
}

/// What can be asked for.
#[derive(Clone, Debug)]
pub enum What {
    /// A call.
    Call(Called),
    /// A stream.
    Stream(Called),
    /// A multi call.
    Multi {
        /// The same deadline by the client's monotonic clock.
        deadline: Time,
        /// The same deadline by the client's wall clock.
        expiry: WallTime,
        /// How many answers end it before its deadline.
        expected: Option<usize>,
        /// How many servers must answer if it must succeed.
        servers: usize,
    },
    /// A message is sent on a stream.
    Send {
        /// The stream.
        stream: usize,
        /// The same deadline by the sender's monotonic clock.
        deadline: Time,
    },
    /// An update is published.
    Update {
        /// Which subscribers must get it if it must succeed: each of them, or one if it goes to a
        /// queue.
        subscribers: Vec<NodeId>,
        /// Whether it goes to a queue.
        queue: bool,
    },
}

/// A call that finds one server.
#[derive(Clone, Copy, Debug)]
pub struct Called {
    /// Whether the bus hands each request to one server.
    pub queue: bool,
    /// How it picks the server that it is granted to, if a server must be granted it.
    pub rules: Option<SelectionRules>,
    /// When it was made, by the client's monotonic clock.
    pub began: Time,
    /// The deadline by that clock.
    pub deadline: Time,
    /// The deadline by the client's wall clock.
    pub expiry: WallTime,
}

/// A handler that was started.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    /// Where.
    pub server: Server<'a>,
    /// For which request.
    pub request: &'a Text,
    /// What the server's wall clock showed.
    pub wall: WallTime,
    /// How far it may be ahead.
    pub allowance: Duration,
}
