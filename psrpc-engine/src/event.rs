//! Events: the outputs of an engine for the layer above.

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

/// An event of a [`Client`](crate::Client).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ClientEvent {
    /// The client's subscriptions are live; calls can be made.
    Ready,
    /// A call asks which of the bids wins. Respond with [`Client::select`](crate::Client::select)
    /// before the call ends. At the call's deadline it is too late to grant a server, but the call
    /// still waits one millisecond, because the choice determines the error that it fails with.
    Select {
        /// The call.
        call: CallHandle,
        /// The bids that reach the minimum affinity, in order of arrival; may be empty.
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
        /// The encoded message, or the server's error.
        result: Result<Bytes, ErrorResponse>,
    },
    /// A multi call has ended. Its handle is stale from here on.
    MultiEnded {
        /// The call.
        call: MultiHandle,
        /// An error if the call failed. A call without any response at its deadline fails.
        outcome: Result<(), Box<Failure>>,
    },
    /// A call that opens a stream has ended. Its handle is stale from here on.
    Opened {
        /// The call.
        call: CallHandle,
        /// The stream, if a server accepted it.
        outcome: Result<StreamHandle, Box<Failure>>,
    },
    /// Something happened to a stream.
    Stream(StreamEvent),
    /// A subscription to updates is live.
    Subscribed {
        /// The subscription.
        subscription: SubscriptionHandle,
    },
    /// An update arrived. [`Client::taken_update`](crate::Client::taken_update) makes room for
    /// another.
    Update {
        /// The subscription.
        subscription: SubscriptionHandle,
        /// The encoded message.
        payload: Bytes,
    },
    /// A subscription to updates has ended. Its handle is stale from here on.
    Unsubscribed {
        /// The subscription.
        subscription: SubscriptionHandle,
        /// The cause, if the client did not unsubscribe: the bus ended or refused the subscription,
        /// or the client's runtime has shut down.
        error: Option<Box<Failure>>,
    },
    /// A frame was dropped.
    Dropped(Dropped),
    /// The bus may have lost frames of a subscription, or an update was dropped for lack of room.
    Gap {
        /// The subscription.
        subscription: SubscriptionHandle,
        /// How many, if known.
        lost: Option<u64>,
    },
    /// The first subscription was interrupted. Frames may be lost until all are [live
    /// again](Self::Resumed). New calls fail at once, unless only subscriptions to updates are
    /// interrupted.
    Interrupted {
        /// The bus's error.
        cause: BusError,
    },
    /// The last interrupted subscription is live again. If it ends instead, the interruption ends
    /// without this event.
    Resumed {
        /// How many subscriptions were interrupted in all.
        count: u32,
    },
    /// The client is closed, and all its subscriptions have ended.
    Closed {
        /// The bus's error, if the bus caused the close.
        error: Option<BusError>,
    },
}

/// A server's response to a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The server that answered.
    pub server_id: Text,
    /// The encoded message.
    pub payload: Bytes,
}

/// An event of a [`Server`](crate::Server).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ServerEvent {
    /// A registration is complete: either all its methods are served from here on, or none is,
    /// because the bus refused a subscription or the registration was ended first.
    Registered {
        /// The registration. If it failed, its handle is stale from here on.
        registration: RegistrationHandle,
        /// The bus's error, if it failed.
        result: Result<(), BusError>,
    },
    /// A registration has ended: its subscriptions have ended, and no request of it is in flight.
    Deregistered {
        /// The registration. Its handle is stale from here on.
        registration: RegistrationHandle,
    },
    /// The bus gave up a subscription of a registration. The registration ends as if it had been
    /// deregistered.
    RegistrationLost {
        /// The registration.
        registration: RegistrationHandle,
        /// The registered routes.
        routes: Vec<Route>,
    },
    /// A request arrived and waits for [`Server::bid`](crate::Server::bid),
    /// [`skip_claim`](crate::Server::skip_claim) or [`reject`](crate::Server::reject).
    Received(Received),
    /// Run the handler of a request, and respond with [`Server::respond`](crate::Server::respond).
    Run {
        /// The request.
        request: RequestHandle,
    },
    /// A stream has opened: its request was granted, or requires no claim. Run its handler, and
    /// call [`finish_stream`](crate::Engine::finish_stream) when the handler is done.
    Accepted {
        /// The request that opened it. Its handle is stale from here on.
        request: RequestHandle,
        /// The stream.
        stream: StreamHandle,
    },
    /// Something happened to a stream.
    Stream(StreamEvent),
    /// Stop the handler of a stream that has ended: the server no longer waits for it. The stream's
    /// handle is stale from here on.
    StopHandler {
        /// The stream.
        stream: StreamHandle,
    },
    /// An update was published, or publishing it failed. The update's handle is stale from here on.
    Updated {
        /// The update.
        update: UpdateHandle,
        /// How many subscribers the bus delivered it to, if the bus knows.
        outcome: Result<Option<u64>, Box<Failure>>,
    },
    /// A request ended without a response from the layer above. Its handle is stale from here on. A
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
        /// How many, if known.
        lost: Option<u64>,
    },
    /// The first subscription was interrupted. Requests may not reach the server until all
    /// subscriptions are [live again](Self::Resumed).
    Interrupted {
        /// The bus's error.
        cause: BusError,
    },
    /// The last interrupted subscription is live again. If it ends instead, the interruption ends
    /// without this event.
    Resumed {
        /// How many subscriptions were interrupted in all.
        count: u32,
    },
    /// The server is closed: all its registrations have ended.
    Closed,
}

/// A request that arrived.
#[derive(Clone, Debug)]
pub struct Received {
    /// The request.
    pub request: RequestHandle,
    /// The method and topic that were called.
    pub route: Route,
    /// The calling client.
    pub client_id: Text,
    /// The call, by its id on the wire.
    pub request_id: Text,
    /// When the request was sent, by the client's wall clock.
    pub sent_at: WallTime,
    /// When the handler must be done.
    pub deadline: Time,
    /// The caller's metadata.
    pub metadata: Metadata,
    /// The encoded message; empty if the request opens a stream.
    pub payload: Bytes,
    /// Whether the request opens a stream.
    pub opens_stream: bool,
    /// Whether [`Server::skip_claim`](crate::Server::skip_claim) would run the request without
    /// waiting for a grant.
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
