//! Acts that the users of clients, servers and streams perform on their own initiative, as
//! scheduled events.

use bytes::Bytes;
use psrpc_engine::proto::{ErrorResponse, Text};
use psrpc_engine::{
    CallHandle, MultiHandle, PendingMessage, RequestHandle, Route, SendHandle, StreamHandle,
    SubscriptionHandle,
};

use crate::fault::Fault;
use crate::node_id::NodeId;

/// An act of the user of a stream.
pub(crate) enum StreamAct {
    Send(StreamHandle),
    Accept(PendingMessage, Bytes),
    Take(StreamHandle),
    CancelSend(SendHandle),
    Close(StreamHandle),
}

/// An act of the user of a client.
pub(crate) enum ClientAct {
    /// Performs one random act of a user.
    Use,
    /// Makes fresh calls of these methods.
    Probe(Vec<Probe>),
    Cancel(CallHandle),
    CancelMulti(MultiHandle),
    Select(CallHandle, Choice),
    Take(SubscriptionHandle),
    Stream(StreamAct),
    Close,
    /// Closes all its streams.
    CloseStreams,
}

/// A method whose fresh call must succeed, and the number of servers that serve it.
#[derive(Clone)]
pub(crate) struct Probe {
    pub(crate) route: Route,
    pub(crate) servers: usize,
}

/// The result of a selection function.
pub(crate) type Choice = Result<Option<Text>, ErrorResponse>;

/// An act of the user of a server.
pub(crate) enum ServerAct {
    Register(Vec<Route>),
    Decide(RequestHandle),
    Finish(RequestHandle),
    FinishStream(StreamHandle),
    /// Publishes an update on the route with this index. A fresh update must reach these clients.
    Publish(usize, Option<Vec<NodeId>>),
    Stream(StreamAct),
    /// Drains, or is killed.
    Leave(Fault),
    /// Closes all its streams.
    CloseStreams,
}
