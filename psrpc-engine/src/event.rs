//! Events: what an engine tells the layer above.

use alloc::boxed::Box;
use alloc::vec::Vec;

use bytes::Bytes;
use psrpc_proto::{ErrorResponse, Metadata, Text};

use crate::core::bus_error::BusError;
use crate::core::handle::{
    CallHandle, MultiHandle, RegistrationHandle, RequestHandle, StreamHandle, SubscriptionHandle,
    UpdateHandle,
};
use crate::core::outputs::CommonEvent;
use crate::core::time::{Time, WallTime};
use crate::error::Failure;
use crate::reason::{Dropped, Reason};
use crate::stream::event::StreamEvent;
use crate::wire::bid::Bid;
use crate::wire::route::Route;

/// What a [`Client`](crate::Client) tells the layer above.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ClientEvent {
    /// Its subscriptions are live; calls can be made.
    Ready,
    /// A call asks which of the bids shall win; [`Client::select`](crate::Client::select) takes the
    /// answer until the call has ended. A call that asks at its deadline ends a millisecond
    /// later, and no server that is chosen then is granted.
    Select {
        /// The call.
        call: CallHandle,
        /// The bids that count, in the order in which they came; there may be none.
        bids: Vec<Bid>,
    },
    /// A call has ended. Its handle is stale from here on.
    Resolved {
        /// The call.
        call: CallHandle,
        /// How it ended.
        outcome: Result<Reply, Box<Failure>>,
    },
    /// A server has answered a multi call.
    Response {
        /// The call.
        call: MultiHandle,
        /// The server.
        server_id: Text,
        /// The user's message, encoded, or the server's error.
        result: Result<Bytes, ErrorResponse>,
    },
    /// A multi call has ended. Its handle is stale from here on.
    MultiEnded {
        /// The call.
        call: MultiHandle,
        /// Why it failed, if it did: no server that did not answer yet will. If none answered in
        /// time, it did.
        outcome: Result<(), Box<Failure>>,
    },
    /// A call that opens a stream has ended. Its handle is stale from here on.
    Opened {
        /// The call.
        call: CallHandle,
        /// The stream, if a server has taken it.
        outcome: Result<StreamHandle, Box<Failure>>,
    },
    /// Something happened to a stream.
    Stream(StreamEvent),
    /// A subscription to updates is live.
    Subscribed {
        /// The subscription.
        subscription: SubscriptionHandle,
    },
    /// An update came; [`Client::taken_update`](crate::Client::taken_update) makes room for
    /// another.
    Update {
        /// The subscription.
        subscription: SubscriptionHandle,
        /// The user's message, encoded.
        payload: Bytes,
    },
    /// A subscription to updates has ended. Its handle is stale from here on.
    Unsubscribed {
        /// The subscription.
        subscription: SubscriptionHandle,
        /// Why, if that was not asked for: the bus ended it or refused it, or the client's runtime
        /// has shut down.
        error: Option<Box<Failure>>,
    },
    /// A frame was dropped.
    Dropped(Dropped),
    /// The bus may have lost frames of a subscription, or an update found no room.
    Gap {
        /// The subscription.
        subscription: SubscriptionHandle,
        /// How many, where that is known.
        lost: Option<u64>,
    },
    /// Subscriptions are interrupted, where none was: frames may be lost until they are [live
    /// again](Self::Resumed). New calls fail at once, unless only subscriptions to updates are
    /// interrupted.
    Interrupted {
        /// What the bus said.
        cause: BusError,
    },
    /// The last interrupted subscription is live again.
    Resumed {
        /// How many were interrupted in all.
        count: u32,
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
    /// A registration has ended its set-up: its methods are served from here on, or the bus refused
    /// a subscription, or it was given up before, and none is.
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
    RegistrationLost {
        /// The registration.
        registration: RegistrationHandle,
        /// What was registered.
        routes: Vec<Route>,
    },
    /// A request came in, and waits for [`Server::bid`](crate::Server::bid),
    /// [`skip_claim`](crate::Server::skip_claim) or [`reject`](crate::Server::reject).
    Received(Received),
    /// The handler of a request is to be run; [`Server::respond`](crate::Server::respond) takes its
    /// answer.
    Run {
        /// The request.
        request: RequestHandle,
    },
    /// A stream was granted to this server and is open; its handler is to be run, until
    /// [`finish_stream`](crate::Engine::finish_stream).
    Accepted {
        /// The request that opened it. Its handle is stale from here on.
        request: RequestHandle,
        /// The stream.
        stream: StreamHandle,
    },
    /// Something happened to a stream.
    Stream(StreamEvent),
    /// The handler of a stream that has ended is not waited for any more, and should be stopped.
    /// The stream's handle is stale from here on.
    StopHandler {
        /// The stream.
        stream: StreamHandle,
    },
    /// An update was published, or could not be. Its handle is stale from here on.
    Updated {
        /// The update.
        update: UpdateHandle,
        /// How many subscribers the bus handed it to, where it knows.
        outcome: Result<Option<u64>, Box<Failure>>,
    },
    /// A request ended without an answer of the layer above. Its handle is stale from here on; a
    /// handler that runs for it should stop.
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
    /// Subscriptions are interrupted, where none was: requests may not reach the server until they
    /// are [live again](Self::Resumed).
    Interrupted {
        /// What the bus said.
        cause: BusError,
    },
    /// The last interrupted subscription is live again.
    Resumed {
        /// How many were interrupted in all.
        count: u32,
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
    /// The user's message, encoded; empty if it opens a stream.
    pub payload: Bytes,
    /// Whether it opens a stream.
    pub opens_stream: bool,
    /// Whether [`Server::skip_claim`](crate::Server::skip_claim) would run it without waiting for a grant.
    pub may_skip_claim: bool,
}

impl CommonEvent for ClientEvent {
    fn dropped(dropped: Dropped) -> Self {
        ClientEvent::Dropped(dropped)
    }

    fn interrupted(cause: BusError) -> Self {
        ClientEvent::Interrupted { cause }
    }

    fn resumed(count: u32) -> Self {
        ClientEvent::Resumed { count }
    }
}

impl CommonEvent for ServerEvent {
    fn dropped(dropped: Dropped) -> Self {
        ServerEvent::Dropped(dropped)
    }

    fn interrupted(cause: BusError) -> Self {
        ServerEvent::Interrupted { cause }
    }

    fn resumed(count: u32) -> Self {
        ServerEvent::Resumed { count }
    }
}

impl From<StreamEvent> for ClientEvent {
    fn from(event: StreamEvent) -> Self {
        ClientEvent::Stream(event)
    }
}

impl From<StreamEvent> for ServerEvent {
    fn from(event: StreamEvent) -> Self {
        ServerEvent::Stream(event)
    }
}
