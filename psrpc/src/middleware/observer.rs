//! Observers of requests before their handlers run, of dropped frames, of streams and of the bus.

use std::sync::Arc;
use std::time::Duration;

use psrpc_engine::proto::{ErrorCode, Text};
use psrpc_engine::{
    BusError, ClientEvent, Dropped, Reason, Received, RequestHandle, ServerEvent, StreamEvent, StreamHandle,
    Time,
};

use crate::bus::BusEvent;
use crate::info::{CallInfo, Side};
use crate::runtime::Runtime;
use crate::{guard, log};

/// An event in a server or a client. Clients report only [`Dropped`](Self::Dropped) and the
/// variants after it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Observation {
    /// A request arrived. It has not been decoded yet.
    Received {
        /// The service, method and topic.
        info: CallInfo,
        /// The id of the call on the wire.
        request_id: Text,
        /// The id of the client.
        client_id: Text,
    },
    /// The outcome of a claimed request is known. Not reported for a request of a method that
    /// requires no claim.
    Bid {
        /// The service, method and topic.
        info: CallInfo,
        /// The id of the call on the wire.
        request_id: Text,
        /// The id of the client.
        client_id: Text,
        /// The outcome.
        outcome: BidOutcome,
        /// The time from the bid to the outcome.
        waited: Duration,
    },
    /// A request arrived too late and was dropped.
    Expired {
        /// The id of the call on the wire.
        request_id: Text,
        /// The id of the client.
        client_id: Text,
        /// How late the request was. If clocks differ, this includes the difference.
        late_by: Duration,
    },
    /// A frame was dropped for another reason.
    Dropped(Dropped),
    /// A stream has ended.
    StreamEnded {
        /// The service, method and topic.
        info: CallInfo,
        /// Why the stream ended.
        reason: Reason,
        /// The code of the cause.
        code: ErrorCode,
    },
    /// The bus may have lost frames of a subscription.
    Gap {
        /// The number of lost frames, if it is known.
        lost: Option<u64>,
    },
    /// An event of the bus connection.
    Bus(BusEvent),
    /// Subscriptions were interrupted. Until they are live again, a client fails new calls at once,
    /// and requests may not reach a server. Reported once, however many subscriptions are affected.
    Interrupted {
        /// The error of the bus.
        cause: BusError,
    },
    /// The subscriptions are live again.
    Resumed {
        /// The number of subscriptions that were interrupted.
        count: u32,
    },
}

/// The outcome of a claimed request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BidOutcome {
    /// The client granted the request to this server, which runs it.
    Granted,
    /// The client granted the request to another server.
    Lost,
    /// The request was abandoned: the server did not bid, was not granted in time, or was killed.
    Abandoned(Reason),
    /// The server ran the request without waiting for a grant
    /// ([`skip_claim`](crate::ServerOptions::skip_claim)).
    Skipped,
}

/// A function called with each observation.
pub(crate) type Observer = Arc<dyn Fn(&Observation) + Send + Sync>;

/// The observers of a client or a server.
#[derive(Clone, Default)]
pub(crate) struct Observers(Vec<Observer>);

impl Observers {
    pub(crate) fn push(&mut self, observer: Observer) {
        self.0.push(observer);
    }

    pub(crate) fn append(&mut self, mut other: Self) {
        self.0.append(&mut other.0);
    }

    /// Returns a watch for these observers, or `None` if there are none.
    pub(crate) fn watch(self) -> Option<Watch> {
        (!self.0.is_empty()).then(|| Watch { observers: self.0.into(), bids: Vec::new() })
    }
}

impl std::fmt::Debug for Observers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} observers", self.0.len())
    }
}

/// A converter from events to observations. Observations are collected under the driver's lock, and
/// delivered after it is released.
pub(crate) struct Watch {
    observers: Arc<[Observer]>,
    /// Requests whose outcome is open, by the index of the request handle. Stale entries remain
    /// until the index is reused.
    bids: Vec<Option<(RequestHandle, PendingBid)>>,
}

/// A request whose outcome is open.
struct PendingBid {
    info: CallInfo,
    request_id: Text,
    client_id: Text,
    required: bool,
    sent_at: Option<Time>,
    skips_claim: bool,
}

impl Watch {
    pub(crate) fn on_client_event(&self, event: &ClientEvent) -> Option<Box<PendingObservation>> {
        match event {
            ClientEvent::Dropped(dropped) => Some(self.pending(Observation::Dropped(dropped.clone()))),
            ClientEvent::Gap { lost, .. } => Some(self.pending(Observation::Gap { lost: *lost })),
            ClientEvent::Interrupted { cause } => {
                Some(self.pending(Observation::Interrupted { cause: cause.clone() }))
            }
            ClientEvent::Resumed { count } => Some(self.pending(Observation::Resumed { count: *count })),
            _ => None,
        }
    }

    pub(crate) fn on_server_event(&mut self, event: &ServerEvent) -> Option<Box<PendingObservation>> {
        match event {
            ServerEvent::Received(received) => Some(self.on_received(received)),
            ServerEvent::Run { request } | ServerEvent::Accepted { request, .. } => {
                let bid = self.take(*request)?;
                let outcome = if bid.skips_claim { BidOutcome::Skipped } else { BidOutcome::Granted };
                bid.required.then(|| self.bid_decided(bid, outcome))
            }
            ServerEvent::Abandoned { request, reason } => {
                let bid = self.take(*request)?;
                let outcome = match reason {
                    Reason::BidLost => BidOutcome::Lost,
                    reason => BidOutcome::Abandoned(*reason),
                };
                bid.required.then(|| self.bid_decided(bid, outcome))
            }
            ServerEvent::Dropped(dropped) => Some(self.pending(match dropped.clone() {
                Dropped { reason: Reason::Expired, request_id, peer: client_id, late_by } => {
                    Observation::Expired { request_id, client_id, late_by }
                }
                dropped => Observation::Dropped(dropped),
            })),
            ServerEvent::Gap { lost, .. } => Some(self.pending(Observation::Gap { lost: *lost })),
            ServerEvent::Interrupted { cause } => {
                Some(self.pending(Observation::Interrupted { cause: cause.clone() }))
            }
            ServerEvent::Resumed { count } => Some(self.pending(Observation::Resumed { count: *count })),
            _ => None,
        }
    }

    pub(crate) fn on_bus_event(&self, event: &BusEvent) -> Box<PendingObservation> {
        self.pending(Observation::Bus(event.clone()))
    }

    pub(crate) fn on_stream_event<'a>(
        &self,
        event: &StreamEvent,
        info: impl FnOnce(StreamHandle) -> Option<&'a CallInfo>,
    ) -> Option<Box<PendingObservation>> {
        let StreamEvent::Ended { stream, cause } = event else { return None };
        let (info, code) = (info(*stream)?.clone(), cause.code.clone());
        Some(self.pending(Observation::StreamEnded { info, reason: cause.reason, code }))
    }

    /// Records that the server is about to bid for a request, or to run it without a grant.
    pub(crate) fn on_bid(&mut self, now: Time, request: RequestHandle, skips_claim: bool) {
        if let Some(Some((handle, bid))) = self.bids.get_mut(request.index())
            && *handle == request
        {
            (bid.sent_at, bid.skips_claim) = (Some(now), skips_claim);
        }
    }

    fn on_received(&mut self, received: &Received) -> Box<PendingObservation> {
        let Received { request, route, request_id, client_id, .. } = received;
        let (info, required) = (CallInfo::from(route.clone()), route.properties().require_claim);
        let (request_id, client_id) = (request_id.clone(), client_id.clone());
        if self.bids.len() <= request.index() {
            self.bids.resize_with(request.index() + 1, || None);
        }
        let bid = PendingBid {
            info: info.clone(),
            request_id: request_id.clone(),
            client_id: client_id.clone(),
            required,
            sent_at: None,
            skips_claim: false,
        };
        self.bids[request.index()] = Some((*request, bid));
        self.pending(Observation::Received { info, request_id, client_id })
    }

    fn take(&mut self, request: RequestHandle) -> Option<PendingBid> {
        let slot = self.bids.get_mut(request.index())?;
        slot.take_if(|(handle, _)| *handle == request).map(|(_, bid)| bid)
    }

    fn bid_decided(&self, bid: PendingBid, outcome: BidOutcome) -> Box<PendingObservation> {
        let PendingBid { info, request_id, client_id, sent_at, .. } = bid;
        let waited = Duration::ZERO;
        let observation = Observation::Bid { info, request_id, client_id, outcome, waited };
        Box::new(PendingObservation { bid_sent_at: sent_at, ..*self.pending(observation) })
    }

    fn pending(&self, observation: Observation) -> Box<PendingObservation> {
        Box::new(PendingObservation {
            observers: Arc::clone(&self.observers),
            observation,
            bid_sent_at: None,
        })
    }
}

/// An observation to deliver after the lock is released.
pub(crate) struct PendingObservation {
    observers: Arc<[Observer]>,
    observation: Observation,
    /// The time of the bid, for an observation of its outcome.
    bid_sent_at: Option<Time>,
}

impl PendingObservation {
    /// Calls the observers.
    pub(crate) fn deliver(mut self, side: Side, runtime: &dyn Runtime) {
        if let (Observation::Bid { waited, .. }, Some(sent_at)) = (&mut self.observation, self.bid_sent_at) {
            *waited = runtime.now().time.since(sent_at);
        }
        for observer in &*self.observers {
            if let Err(panicked) = guard::catch(|| observer(&self.observation)) {
                log::panicked(side, "an observer", None, &panicked);
            }
        }
    }
}
