//! Events: what an engine tells the layer above.

use alloc::boxed::Box;
use alloc::vec::Vec;

use bytes::Bytes;
use psrpc_proto::{Metadata, Text};

use crate::error::{BusError, Failure};
use crate::output::DroppedEvent;
use crate::selection::Claim;
use crate::{
    CallHandle, Dropped, Reason, RegistrationHandle, RequestHandle, Route, SubscriptionHandle, Time, WallTime,
};

/// What a [`Client`](crate::Client) tells the layer above.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ClientEvent {
    /// Its subscriptions are live; calls can be made.
    Ready,
    /// A call asks which of the bids shall win; [`Client::select`](crate::Client::select) takes the answer, until
    /// the call's deadline.
    Select {
        /// The call.
        call: CallHandle,
        /// The bids that count, in the order in which they came; there may be none.
        claims: Vec<Claim>,
    },
    /// A call has ended. Its handle is stale from here on.
    Resolved {
        /// The call.
        call: CallHandle,
        /// How it ended.
        outcome: Result<Reply, Box<Failure>>,
    },
    /// A frame was dropped.
    Dropped(Dropped),
    /// The bus may have lost frames of a subscription.
    Gap {
        /// The subscription.
        subscription: SubscriptionHandle,
        /// How many, where that is known.
        lost: Option<u64>,
    },
    /// It is closed, and all its subscriptions have ended.
    Closed {
        /// What the bus said, if it was the bus that closed it.
        error: Option<BusError>,
    },
}

/// A server's answer to a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Who answered.
    pub server_id: Text,
    /// The user's message, encoded.
    pub payload: Bytes,
}

/// What a [`Server`](crate::Server) tells the layer above.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ServerEvent {
    /// A registration has ended its set-up: its methods are served from here on, or the bus refused a subscription, or
    /// it was given up before, and none is.
    Registered {
        /// The registration. Its handle is stale from here on if it failed.
        registration: RegistrationHandle,
        /// What the bus said, if it failed.
        result: Result<(), BusError>,
    },
    /// A registration is gone: its subscriptions have ended, and no request of it is in flight.
    Deregistered {
        /// The registration. Its handle is stale from here on.
        registration: RegistrationHandle,
    },
    /// The bus gave up a subscription of a registration, which goes as if it had been deregistered.
    Lost {
        /// The registration.
        registration: RegistrationHandle,
    },
    /// A request came in, and waits for [`Server::bid`](crate::Server::bid),
    /// [`elect`](crate::Server::elect) or [`reject`](crate::Server::reject).
    Received(Received),
    /// The handler of a request is to be run; [`Server::respond`](crate::Server::respond) takes its answer.
    Run {
        /// The request.
        request: RequestHandle,
    },
    /// A request ended without an answer of the layer above. Its handle is stale from here on; a handler that runs
    /// for it should stop.
    Abandoned {
        /// The request.
        request: RequestHandle,
        /// Why.
        reason: Reason,
    },
    /// A frame was dropped.
    Dropped(Dropped),
    /// The bus may have lost frames of a subscription.
    Gap {
        /// The subscription.
        subscription: SubscriptionHandle,
        /// How many, where that is known.
        lost: Option<u64>,
    },
    /// The server is closed: all its registrations are gone.
    Closed,
}

/// A request that came in.
#[derive(Clone, Debug)]
pub struct Received {
    /// The request.
    pub request: RequestHandle,
    /// The method and topic it came for.
    pub route: Route,
    /// Who calls.
    pub client_id: Text,
    /// The call, by its id on the wire.
    pub request_id: Text,
    /// When it was sent, by the client's wall clock.
    pub sent_at: WallTime,
    /// When its handler must be done.
    pub deadline: Time,
    /// What the caller sent along.
    pub metadata: Metadata,
    /// The user's message, encoded.
    pub payload: Bytes,
    /// Whether [`Server::elect`](crate::Server::elect) would run it without waiting for a grant.
    pub may_elect: bool,
}

impl DroppedEvent for ClientEvent {
    fn dropped(dropped: Dropped) -> Self {
        ClientEvent::Dropped(dropped)
    }
}

impl DroppedEvent for ServerEvent {
    fn dropped(dropped: Dropped) -> Self {
        ServerEvent::Dropped(dropped)
    }
}
