//! Facts: the events of a run of engines that the invariants are about.

use std::time::Duration;

use bytes::Bytes;
use psrpc_engine::proto::{ErrorResponse, Frame, Text};
use psrpc_engine::{Failure, Reply, Time, WallTime};

use super::selection_rules::SelectionRules;
use crate::node_id::NodeId;

/// An event of a run. Times are virtual unless stated otherwise. Operations of users are numbered
/// from 0 in the order in which they start. The number of a stream is that of the call that opens
/// it.
#[derive(Clone, Debug)]
pub enum Fact<'a> {
    /// The time has advanced to this.
    TimeAdvanced(Time),
    /// A user has started an operation, which must end.
    Started(Operation),
    /// An engine published a frame. Its operation number is in the frame: in the payload of a
    /// request (`call 17`), or in the metadata of an opening (`call`: `call 17`).
    Published {
        /// The node.
        node: NodeId,
        /// The frame.
        frame: &'a Frame,
        /// The reading of the node's monotonic clock.
        now: Time,
        /// The reading of that clock when a full bus or a pause last blocked the node.
        last_blocked: Option<Time>,
    },
    /// The bus reported to a node that it rejected a frame.
    PublishFailed {
        /// The node.
        node: NodeId,
        /// The frame.
        frame: &'a Frame,
    },
    /// A frame arrived at a server, at this time by its monotonic clock. Damaged frames and
    /// noise are raw.
    ServerReceived(Server<'a>, &'a Frame, Time),
    /// A frame arrived at a client, at this time by its monotonic clock. Damaged frames and
    /// noise are raw.
    ClientReceived(NodeId, &'a Frame, Time),
    /// A server skips the claim of a request.
    SkippedClaim {
        /// The server.
        server: Server<'a>,
        /// The request.
        request: &'a Text,
    },
    /// A server started the handler of a request or of a stream.
    HandlerStarted(HandlerStart<'a>),
    /// The user of a server responded to a request, in its handler or before.
    Responded {
        /// The server.
        server: Server<'a>,
        /// The request.
        request: &'a Text,
        /// The response.
        result: Result<Bytes, ErrorResponse>,
    },
    /// A caller cancels a call.
    Canceled {
        /// The call.
        call: usize,
        /// Whether the engine also handles another input in the same step, which may have ended the
        /// call first.
        may_have_ended: bool,
    },
    /// The user has dropped an operation and no longer waits for its end.
    Abandoned {
        /// The number of the operation.
        number: usize,
    },
    /// A client was closed by its user.
    Closed {
        /// The client.
        client: NodeId,
    },
    /// A node has crashed.
    Crashed(NodeId),
    /// A node is paused.
    Paused {
        /// The node.
        node: NodeId,
        /// The end of the pause.
        until: Time,
    },
    /// A unary call has ended.
    Resolved {
        /// The call, or `None` if it is unknown.
        call: Option<usize>,
        /// Its outcome.
        outcome: &'a Result<Reply, Box<Failure>>,
    },
    /// The client reported a response to a multi call.
    MultiResponse {
        /// The call, or `None` if it is unknown.
        call: Option<usize>,
        /// The server.
        server_id: &'a Text,
        /// The response.
        result: &'a Result<Bytes, ErrorResponse>,
    },
    /// The opening of a stream, a multi call, a send or an update has ended.
    Ended {
        /// The operation, or `None` if it is unknown.
        number: Option<usize>,
        /// Its outcome.
        outcome: Result<(), &'a Failure>,
    },
    /// The engine reported a message of a stream.
    MessageReceived {
        /// The node.
        at: NodeId,
        /// The stream.
        stream: usize,
        /// The payload.
        payload: &'a Bytes,
    },
    /// The consumer accepted a message of a stream.
    Accepted {
        /// The node.
        at: NodeId,
        /// The number of the send.
        message: usize,
    },
    /// A stream has ended on one side.
    StreamEnded {
        /// The node.
        at: NodeId,
        /// The stream.
        stream: usize,
        /// The cause.
        cause: &'a Failure,
    },
    /// The client reported an update.
    UpdateReceived {
        /// The node.
        at: NodeId,
        /// The payload.
        payload: &'a Bytes,
    },
    /// Faults have stopped, and their effects are over.
    Calm,
    /// A node has handled an input, and all its outputs were taken.
    StepEnded,
    /// A node has handled a timeout, and all its outputs were taken. Times are by its own clock.
    TimeoutHandled {
        /// The time that the node passed to the engine.
        at: Time,
        /// The next timeout.
        next: Option<Time>,
    },
    /// The sizes of an engine's tables.
    TableSizes(&'a [TableSize]),
    /// The sizes of the tables of an engine that must be empty.
    Leftovers {
        /// The sizes of its tables.
        tables: &'a [TableSize],
        /// The next timeout.
        timer: Option<Time>,
    },
}

/// The size of a table of an engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableSize {
    /// The name of the table.
    pub table: &'static str,
    /// The number of entries.
    pub count: usize,
    /// The limit.
    pub limit: usize,
}

/// A server, in one incarnation. Its replacement after a crash may have the same id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Server<'a> {
    /// Its id on the wire.
    pub id: &'a Text,
    /// The number of this incarnation among all servers of the run.
    pub incarnation: usize,
}

/// An operation of a user.
#[derive(Clone, Debug)]
pub struct Operation {
    /// The node of the user.
    pub node: NodeId,
    /// The kind.
    pub kind: OperationKind,
    /// The deadline.
    pub deadline: Time,
    /// The grace period after the deadline, for a caller that is asked to select a server at the
    /// deadline.
    pub grace: Duration,
    /// Whether it must succeed.
    pub must_succeed: bool,
}

/// The kind of an operation.
#[derive(Clone, Debug)]
pub enum OperationKind {
    /// A unary call.
    Call(CallParameters),
    /// The opening of a stream.
    Stream(CallParameters),
    /// A multi call.
    Multi {
        /// The deadline by the client's monotonic clock.
        deadline: Time,
        /// The deadline by the client's wall clock.
        expiry: WallTime,
        /// The number of responses that ends it before its deadline.
        expected: Option<usize>,
        /// The number of servers that must respond if it must succeed.
        servers: usize,
    },
    /// A send on a stream.
    Send {
        /// The stream.
        stream: usize,
        /// The deadline by the sender's monotonic clock.
        deadline: Time,
    },
    /// The publishing of an update.
    Update {
        /// The subscribers that must receive it if it must succeed: all of them, or one if it goes
        /// to a queue.
        subscribers: Vec<NodeId>,
        /// Whether it goes to a queue.
        queue: bool,
    },
}

/// The parameters of a call that one server runs.
#[derive(Clone, Copy, Debug)]
pub struct CallParameters {
    /// Whether the bus passes each request to one server.
    pub queue: bool,
    /// The selection rules, if the call needs a grant.
    pub rules: Option<SelectionRules>,
    /// The start by the client's monotonic clock.
    pub began: Time,
    /// The deadline by the client's monotonic clock.
    pub deadline: Time,
    /// The deadline by the client's wall clock.
    pub expiry: WallTime,
}

/// The start of a handler.
#[derive(Clone, Copy, Debug)]
pub struct HandlerStart<'a> {
    /// The node.
    pub server: Server<'a>,
    /// The request.
    pub request: &'a Text,
    /// The reading of the server's wall clock.
    pub wall: WallTime,
    /// The server's allowance for skewed clocks.
    pub allowance: Duration,
}
