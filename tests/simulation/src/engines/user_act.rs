//! Acts of users: what the users of clients, servers and streams do by themselves, as an entry of
//! the agenda.

use bytes::Bytes;
use psrpc_engine::proto::{ErrorResponse, Text};
use psrpc_engine::{
    CallHandle, MultiHandle, PendingMessage, RequestHandle, Route, SendHandle, StreamHandle,
    SubscriptionHandle,
};

use crate::fault::Fault;
use crate::node_id::NodeId;

/// What a user of a stream does at some moment.
pub(crate) enum StreamAct {
    Say(StreamHandle),
    Accept(PendingMessage, Bytes),
    Take(StreamHandle),
    CancelSend(SendHandle),
    Close(StreamHandle),
}

/// What the user of a client does at some moment.
pub(crate) enum ClientAct {
    /// Something that users do.
    Use,
    /// Makes fresh calls: of these, which servers serve.
    Probe(Vec<Probe>),
    Cancel(CallHandle),
    CancelMulti(MultiHandle),
    Select(CallHandle, Choice),
    Take(SubscriptionHandle),
    Stream(StreamAct),
    Close,
    /// Ends all its streams.
    HangUp,
}

/// A method that a fresh call of must succeed, and how many servers answer it.
#[derive(Clone)]
pub(crate) struct Probe {
    pub(crate) route: Route,
    pub(crate) servers: usize,
}

/// The answer of a selection function.
pub(crate) type Choice = Result<Option<Text>, ErrorResponse>;

/// What the user of a server does at some moment.
pub(crate) enum ServerAct {
    Register(Vec<Route>),
    Decide(RequestHandle),
    Finish(RequestHandle),
    FinishStream(StreamHandle),
    /// Publishes an update on the route of this place; a fresh one reaches these clients.
    Publish(usize, Option<Vec<NodeId>>),
    Stream(StreamAct),
    /// Drains, or is killed.
    Leave(Fault),
    /// Ends all its streams.
    HangUp,
}
