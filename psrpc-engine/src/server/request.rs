//! The server's side of a request.
//!
//! ```text
//!             ┌─── no claim required, or skip claim ───┐
//!             │                                        ▼
//! ─checks─▶ Deciding ──bid──▶ Bidding ──granted──▶ (not expired?) ──▶ Running ─respond─▶ Answered
//!             │
//!             └──reject──▶ Answered
//! ```
//!
//! Before it is answered, a request may be abandoned: it expires, the server makes no bid, the
//! client grants another server or cancels, or the server is killed.
//!
//! A request that opens a stream becomes the stream instead of running.

use alloc::format;
use core::time::Duration;

use bytes::Bytes;
use psrpc_proto::{
    Channel, ClaimRequest, ClaimResponse, ErrorCode, ErrorResponse, Frame, Metadata, Request, Response, Text,
};

use super::context::Context;
use super::side::{Outputs, Owner, ServedBy};
use crate::config::ServerConfig;
use crate::core::budget::{Budget, Step};
use crate::core::bus_error::BusError;
use crate::core::cache::Cache;
use crate::core::dedup::{Admission, BucketKey, Dedup};
use crate::core::handle::{RegistrationHandle, RequestHandle};
use crate::core::in_flight::{InFlight, Vacancy};
use crate::core::map::{HashKeys, Map};
use crate::core::outputs::Publish;
use crate::core::time::{Expired, Expiry, NotExpired, WallTime};
use crate::core::timers::TimerKind;
use crate::event::{Received, ServerEvent};
use crate::reason::{Dropped, Reason};
use crate::stream::frames;
use crate::stream::pending_message::PendingMessage;
use crate::wire::outgoing::{self, TooLarge};
use crate::wire::route::Route;

/// The requests of a server in flight, and the requests that it remembers.
pub(super) struct Requests {
    in_flight: InFlight<RequestHandle, Pending>,
    dedup: Dedup,
    keys: HashKeys,
    clients: Cache<ClientChannels>,
    /// Requests that open streams, by stream id.
    openings: Map<RequestHandle>,
    /// How many requests count against [`ServerConfig::concurrency`].
    busy: usize,
    /// The metadata and payloads of the requests in flight, in bytes.
    bytes: usize,
}

/// A request on arrival.
pub(super) struct Incoming {
    pub(super) registration: RegistrationHandle,
    pub(super) route: Route,
    pub(super) request_id: Text,
    pub(super) client_id: Text,
    pub(super) sent_at: i64,
    pub(super) expiry: i64,
    pub(super) metadata: Metadata,
    pub(super) payload: Bytes,
    pub(super) skip_claim: bool,
    pub(super) opens: Option<Opening>,
}

/// The stream that a request opens, and the times that its ack carries.
#[derive(Clone)]
pub(super) struct Opening {
    pub(super) stream_id: Text,
    pub(super) sent_at: i64,
    pub(super) expiry: i64,
}

/// A request in flight.
struct Pending {
    route: Route,
    registration: RegistrationHandle,
    client: ClientChannels,
    opens: Option<Opened>,
    expiry: Expiry,
    may_skip_claim: bool,
    /// The length of the metadata and the payload.
    bytes: usize,
    state: RequestState,
}

/// A stream that opens if its request is granted.
struct Opened {
    opening: Opening,
    channel: Channel,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum RequestState {
    /// The layer above decodes the request and decides on a bid.
    Deciding,
    /// The server bid, and waits for the client's grant.
    Bidding,
    /// The handler runs.
    Running,
    /// The response waits for the bus.
    Answered,
}

/// The channels to a client.
#[derive(Clone)]
struct ClientChannels {
    bids: Channel,
    responses: Channel,
}

impl Requests {
    pub(super) fn new(keys: HashKeys, config: &ServerConfig) -> Self {
        Self {
            in_flight: InFlight::new(keys.clone()),
            dedup: Dedup::new(config.limits.remembered),
            clients: Cache::new(config.limits.cached_clients, keys.clone()),
            openings: Map::new(),
            busy: 0,
            bytes: 0,
            keys,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.in_flight.len()
    }

    pub(super) fn contains(&self, request: RequestHandle) -> bool {
        self.in_flight.get(request).is_some()
    }

    pub(super) fn remembered(&self) -> usize {
        self.dedup.remembered()
    }

    pub(super) fn is_deciding(&self, request: RequestHandle) -> bool {
        self.state(request) == Some(RequestState::Deciding)
    }

    /// Returns the id of a request in flight, or an empty text if it is over.
    pub(super) fn id(&self, request: RequestHandle) -> Text {
        self.in_flight.get(request).map(|entry| entry.id.clone()).unwrap_or_default()
    }

    // --- frames ----------------------------------------------------------------------------------

    pub(super) fn receive(&mut self, cx: &mut Context<'_>, incoming: Incoming) {
        let (expiry, vacancy) = match self.check(cx, &incoming) {
            Ok(checked) => checked,
            Err((reason, Expired { by })) => return self.refuse(cx, incoming, reason, by),
        };
        let Incoming { registration, route, request_id, client_id, opens, .. } = incoming;
        let request = self.in_flight.next();
        let may_skip_claim = incoming.skip_claim && route.may_skip_claim();
        let client = self.channels(cx.config, &client_id);
        let opens_stream = opens.is_some();
        let opens = opens.map(|opening| {
            self.openings.insert(self.keys.hash(opening.stream_id.as_bytes()), request);
            Opened { opening, channel: stream_channel(cx.config, &client_id) }
        });
        self.busy += usize::from(!opens_stream);
        let bytes = incoming.metadata.bytes() + incoming.payload.len();
        self.bytes += bytes;
        let state = RequestState::Deciding;
        let pending = Pending {
            route: route.clone(),
            registration,
            client,
            opens,
            expiry,
            may_skip_claim,
            bytes,
            state,
        };
        let timer = cx.outputs.timers.arm(expiry.time(), TimerKind::Expiry, Owner::Request(request));
        self.in_flight.insert(vacancy, request_id.clone(), Some(timer), pending);
        cx.registry.request_started(registration);
        cx.outputs.event(ServerEvent::Received(Received {
            request,
            route,
            client_id,
            request_id,
            sent_at: WallTime::from_unix_nanos(incoming.sent_at),
            deadline: expiry.time(),
            metadata: incoming.metadata,
            payload: incoming.payload,
            opens_stream,
            may_skip_claim,
        }));
    }

    /// Checks whether a request is accepted, and remembers it.
    fn check(
        &mut self,
        cx: &mut Context<'_>,
        request: &Incoming,
    ) -> Result<(Expiry, Vacancy), (Reason, Expired)> {
        let Context { now, outputs, config, streams, .. } = cx;
        let refuse = |reason| (reason, Expired { by: Duration::ZERO });
        let stream_id = request.opens.as_ref().map(|opening| &opening.stream_id);
        let named = stream_id.unwrap_or(&request.request_id);
        if request.request_id.is_empty() || request.client_id.is_empty() || named.is_empty() {
            return Err(refuse(Reason::MissingId));
        }
        let Incoming { sent_at, expiry, .. } = *request;
        let expiry = Expiry::of_frame(*now, sent_at, expiry, config.horizon, config.skew_allowance)?;
        // A stream is opened once, whatever the request id of its opening.
        let identity = self.keys.identity(request.client_id.as_bytes(), named.as_bytes());
        let Some(vacancy) = self.in_flight.vacancy(&request.request_id) else {
            let known = self.dedup.contains(identity);
            return Err(refuse(if known { Reason::Duplicate } else { Reason::IdTaken }));
        };
        match self.dedup.admit(*now, &mut outputs.timers, identity, &expiry, Owner::Bucket) {
            Admission::Duplicate => return Err(refuse(Reason::Duplicate)),
            Admission::Forgotten(expired) => return Err((Reason::Expired, expired)),
            Admission::Full => return Err(refuse(Reason::DedupFull)),
            Admission::New => {}
        }
        // Checked only after the request is remembered: a duplicate of a refused request must not
        // run later.
        if self.in_flight.len() >= config.limits.requests {
            return Err(refuse(Reason::RequestsFull));
        }
        let bytes = self.bytes + request.metadata.bytes() + request.payload.len();
        if bytes > config.limits.request_bytes {
            return Err(refuse(Reason::RequestsFull));
        }
        match stream_id {
            Some(_) if streams.len() + self.openings.len() >= config.limits.streams.streams => {
                Err(refuse(Reason::StreamsFull))
            }
            Some(_) if outputs.is_overfull() => Err(refuse(Reason::StreamsFull)),
            Some(stream_id) if streams.find(stream_id).is_some() => Err(refuse(Reason::IdTaken)),
            None if config.concurrency.is_some_and(|limit| self.busy >= limit) => Err(refuse(Reason::Busy)),
            _ => Ok((expiry, vacancy)),
        }
    }

    fn refuse(&mut self, cx: &mut Context<'_>, incoming: Incoming, reason: Reason, late_by: Duration) {
        let Incoming { route, request_id, client_id, opens, .. } = incoming;
        let full = match reason {
            Reason::RequestsFull => Some("the server has too many requests in flight"),
            Reason::DedupFull => Some("the server has too many requests to remember"),
            Reason::StreamsFull => Some("the server has too many open streams"),
            Reason::Busy => Some("the server has reached its concurrency limit"),
            _ => None,
        };
        if let Some(text) = full {
            let error = ErrorResponse::new(ErrorCode::ResourceExhausted, Text::from_static(text));
            match opens {
                // No other server takes the stream, so its client would wait until its deadline.
                Some(Opening { stream_id, .. }) if !route.properties().require_claim => {
                    let channel = stream_channel(cx.config, &client_id);
                    refuse_stream(cx, stream_id, &channel, error);
                }
                None if route.is_queue()
                    || !(route.properties().require_claim || route.properties().multi()) =>
                {
                    self.publish_refusal(cx, &client_id, request_id.clone(), error);
                }
                _ => {}
            }
        }
        cx.outputs.dropped(Dropped { reason, request_id, peer: client_id, late_by });
    }

    /// Answers a request for a method that is not registered here and that no other server sees.
    pub(super) fn on_misrouted(&mut self, cx: &mut Context<'_>, request: Request) {
        let Request { request_id, client_id, expiry, .. } = request;
        let expired = cx.now.wall >= WallTime::from_unix_nanos(expiry) + cx.config.skew_allowance;
        if !request_id.is_empty() && !client_id.is_empty() && !expired {
            let text = Text::from_static("method is not implemented");
            let error = ErrorResponse::new(ErrorCode::Unimplemented, text);
            self.publish_refusal(cx, &client_id, request_id.clone(), error);
        }
        cx.outputs.dropped(Dropped::of(Reason::Misrouted, request_id, client_id));
    }

    /// Handles a client's close of a stream that is not open yet.
    pub(super) fn on_opening_closed(&mut self, cx: &mut Context<'_>, stream_id: &Text) {
        let matches = |request: &RequestHandle| {
            let opens = self.in_flight.get(*request).and_then(|entry| entry.state.opens.as_ref());
            opens.is_some_and(|opened| opened.opening.stream_id == *stream_id)
        };
        match self.openings.get(self.keys.hash(stream_id.as_bytes()), matches).copied() {
            Some(request) => self.abandon(cx, request, Reason::ClosedByPeer),
            None => cx.outputs.count(Reason::Elsewhere),
        }
    }

    pub(super) fn on_grant(&mut self, cx: &mut Context<'_>, grant: ClaimResponse) {
        let Some(request) = self.in_flight.find(&grant.request_id) else {
            return cx.outputs.count(Reason::Elsewhere);
        };
        let ours = grant.server_id == cx.config.id;
        let canceled = cx.config.heeds_cancellation && grant.server_id.is_empty();
        match self.state(request) {
            Some(RequestState::Deciding | RequestState::Bidding | RequestState::Running) if canceled => {
                self.abandon(cx, request, Reason::Canceled);
            }
            Some(RequestState::Bidding) if ours => self.run(cx, request),
            Some(RequestState::Deciding | RequestState::Bidding) if !ours => {
                self.abandon(cx, request, Reason::BidLost);
            }
            _ => cx.outputs.dropped(Dropped::of(Reason::Late, grant.request_id, Text::EMPTY)),
        }
    }

    // --- time and results ------------------------------------------------------------------------

    pub(super) fn on_timeout(&mut self, cx: &mut Context<'_>, request: RequestHandle) {
        let Some(entry) = self.in_flight.timer_fired(request) else { return };
        let reason = match entry.state.state {
            RequestState::Deciding | RequestState::Bidding => Reason::NotGranted,
            RequestState::Running => Reason::Overran,
            RequestState::Answered => return self.end(cx, request),
        };
        self.abandon(cx, request, reason);
    }

    pub(super) fn on_forget(&mut self, cx: &mut Context<'_>, bucket: BucketKey, budget: &mut Budget) {
        self.dedup.forget(cx.now, &mut cx.outputs.timers, bucket, Owner::Bucket, budget);
    }

    /// Abandons a request whose bid the bus failed to publish, because no grant will come.
    pub(super) fn on_bid_failed(&mut self, cx: &mut Context<'_>, request: RequestHandle) {
        if self.state(request) == Some(RequestState::Bidding) {
            self.abandon(cx, request, Reason::PublishFailed);
        }
    }

    /// Ends a request whose response was published. If the bus cannot carry the response, an error
    /// response takes its place, so that the caller does not wait for its deadline.
    pub(super) fn on_response_published(
        &mut self,
        cx: &mut Context<'_>,
        request: RequestHandle,
        result: Result<Option<u64>, BusError>,
    ) {
        let is_answered = self.state(request) == Some(RequestState::Answered);
        if let Err(error) = result {
            cx.outputs.dropped(Dropped::of(Reason::PublishFailed, self.id(request), Text::EMPTY));
            if is_answered && error.is_invalid() {
                self.replace_response(cx, request, &error);
            }
        }
        if is_answered {
            self.end(cx, request);
        }
    }

    /// Publishes an error response in place of one that the bus cannot carry.
    fn replace_response(&self, cx: &mut Context<'_>, request: RequestHandle, error: &BusError) {
        let Some(entry) = self.in_flight.get(request) else { return };
        let text = format!("the bus cannot carry the response: {error}");
        let error = Err(ErrorResponse::new(ErrorCode::ResourceExhausted, text));
        publish_response(cx, Publish::Refusal, &entry.state.client, entry.id.clone(), error);
    }

    // --- commands --------------------------------------------------------------------------------

    pub(super) fn bid(&mut self, cx: &mut Context<'_>, request: RequestHandle, affinity: f32) {
        let Some(pending) = self.deciding(request) else { return };
        if !affinity.is_finite() {
            return self.abandon(cx, request, Reason::NonFiniteAffinity);
        }
        if affinity < 0.0 {
            return self.abandon(cx, request, Reason::NoBid);
        }
        if !pending.route.properties().require_claim {
            return self.run(cx, request);
        }
        if pending.opens.is_some() && cx.registry.is_leaving(pending.registration) {
            // The stream would end at once.
            return self.abandon(cx, request, Reason::Draining);
        }
        pending.state = RequestState::Bidding;
        self.publish_bid(cx, request, affinity, false);
    }

    pub(super) fn skip_claim(&mut self, cx: &mut Context<'_>, request: RequestHandle) {
        let Some(pending) = self.deciding(request) else { return };
        if !pending.may_skip_claim {
            return self.bid(cx, request, 1.0);
        }
        if pending.expiry.check(cx.now).is_ok() {
            self.publish_bid(cx, request, 1.0, true);
        }
        self.run(cx, request);
    }

    pub(super) fn reject(&mut self, cx: &mut Context<'_>, request: RequestHandle, error: ErrorResponse) {
        if self.deciding(request).is_some() {
            cx.outputs.dropped(Dropped::of(Reason::MalformedRequest, self.id(request), Text::EMPTY));
            match self.in_flight.get(request).and_then(|entry| entry.state.opens.as_ref()) {
                Some(Opened { opening, channel }) => {
                    let (stream_id, channel) = (opening.stream_id.clone(), channel.clone());
                    refuse_stream(cx, stream_id, &channel, error);
                    self.end(cx, request);
                }
                None => self.answer(cx, request, Err(error)),
            }
        }
    }

    pub(super) fn respond(
        &mut self,
        cx: &mut Context<'_>,
        request: RequestHandle,
        result: Result<Bytes, ErrorResponse>,
    ) {
        let Some(entry) = self.in_flight.get(request) else { return };
        if entry.state.state != RequestState::Running {
            return;
        }
        // Only the monotonic clock counts here, so a jump of the wall clock does not discard the
        // result of a running handler.
        let Pending { expiry, .. } = &entry.state;
        if cx.now.time >= expiry.time() {
            return self.abandon(cx, request, Reason::Overran);
        }
        self.answer(cx, request, result);
    }

    /// Returns the next request from `cursor` on, and advances `cursor`.
    pub(super) fn walk(&self, cursor: &mut usize, budget: &mut Budget) -> Step<RequestHandle> {
        self.in_flight.walk(cursor, budget)
    }

    /// Abandons a request of a server that closes, without updating its registration.
    pub(super) fn drop_request(&mut self, outputs: &mut Outputs, request: RequestHandle, reason: Reason) {
        let settled = self.settle(outputs, request);
        if settled.is_some_and(|(_, pending)| pending.state != RequestState::Answered) {
            outputs.count(reason);
            outputs.event(ServerEvent::Abandoned { request, reason });
        }
    }

    /// Forgets the remembered requests.
    pub(super) fn forget(&mut self, outputs: &mut Outputs) {
        self.dedup.clear(&mut outputs.timers);
    }

    // --- transitions -----------------------------------------------------------------------------

    fn state(&self, request: RequestHandle) -> Option<RequestState> {
        self.in_flight.get(request).map(|entry| entry.state.state)
    }

    fn deciding(&mut self, request: RequestHandle) -> Option<&mut Pending> {
        let pending = &mut self.in_flight.get_mut(request)?.state;
        (pending.state == RequestState::Deciding).then_some(pending)
    }

    /// Runs a request, unless it has expired.
    fn run(&mut self, cx: &mut Context<'_>, request: RequestHandle) {
        let Some(entry) = self.in_flight.get_mut(request) else { return };
        match entry.state.expiry.check(cx.now) {
            Ok(proof) if entry.state.opens.is_some() => self.open(cx, request, proof),
            Ok(proof) => start(cx.outputs, request, &mut entry.state, proof),
            Err(_) => self.abandon(cx, request, Reason::NotGranted),
        }
    }

    /// Opens a granted stream. This starts its handler, so it requires the proof that the request
    /// has not expired.
    fn open(&mut self, cx: &mut Context<'_>, request: RequestHandle, _: NotExpired) {
        let Some((request_id, pending)) = self.settle(cx.outputs, request) else { return };
        let (registration, Some(Opened { opening, channel })) = (pending.registration, pending.opens) else {
            return;
        };
        let Opening { stream_id, sent_at, expiry } = opening;
        let vacancy = cx.streams.vacancy(&stream_id);
        let Some(vacancy) = vacancy.filter(|_| !cx.registry.is_leaving(registration)) else {
            refuse_stream(cx, stream_id, &channel, frames::eof());
            cx.outputs.count(Reason::Draining);
            cx.outputs.event(ServerEvent::Abandoned { request, reason: Reason::Draining });
            return cx.registry.request_ended(cx.outputs, registration);
        };
        let index = cx.registry.add_stream(registration, cx.streams.next());
        let (streams, mut cx) = cx.streams();
        let stream = streams.add(vacancy, stream_id, channel, ServedBy { registration, index });
        streams.opened(&mut cx, stream);
        cx.outputs.event(ServerEvent::Accepted { request, stream });
        streams.acknowledge(&mut cx, PendingMessage { stream, request_id, sent_at, expiry });
    }

    fn publish_bid(&self, cx: &mut Context<'_>, request: RequestHandle, affinity: f32, handling: bool) {
        let Some(entry) = self.in_flight.get(request) else { return };
        let (request_id, server_id) = (entry.id.clone(), cx.config.id.clone());
        let claim = ClaimRequest { request_id, server_id, affinity, handling };
        let kind = if handling { Publish::Announcement(request) } else { Publish::Bid(request) };
        cx.outputs.publish(kind, &entry.state.client.bids, Frame::ClaimRequest(claim));
    }

    fn answer(&mut self, cx: &mut Context<'_>, request: RequestHandle, result: Result<Bytes, ErrorResponse>) {
        let Some(entry) = self.in_flight.get_mut(request) else { return };
        entry.state.state = RequestState::Answered;
        self.busy -= 1;
        publish_response(cx, Publish::Response(request), &entry.state.client, entry.id.clone(), result);
    }

    fn abandon(&mut self, cx: &mut Context<'_>, request: RequestHandle, reason: Reason) {
        cx.outputs.count(reason);
        cx.outputs.event(ServerEvent::Abandoned { request, reason });
        self.end(cx, request);
    }

    fn end(&mut self, cx: &mut Context<'_>, request: RequestHandle) {
        if let Some((_, pending)) = self.settle(cx.outputs, request) {
            cx.registry.request_ended(cx.outputs, pending.registration);
        }
    }

    /// Inlined because the result is large to copy.
    #[inline(always)]
    fn settle(&mut self, outputs: &mut Outputs, request: RequestHandle) -> Option<(Text, Pending)> {
        let (id, pending) = self.in_flight.settle(request, &mut outputs.timers)?;
        self.bytes -= pending.bytes;
        match &pending.opens {
            Some(Opened { opening, .. }) => {
                self.openings.remove(self.keys.hash(opening.stream_id.as_bytes()), |known| *known == request);
            }
            None => self.busy -= usize::from(pending.state != RequestState::Answered),
        }
        Some((id, pending))
    }

    /// Answers a request that was not accepted, unless the bus is full: nothing bounds the number
    /// of these responses.
    fn publish_refusal(
        &mut self,
        cx: &mut Context<'_>,
        client_id: &Text,
        request_id: Text,
        error: ErrorResponse,
    ) {
        if !cx.outputs.is_blocked() {
            let client = self.channels(cx.config, client_id);
            publish_response(cx, Publish::Refusal, &client, request_id, Err(error));
        }
    }

    fn channels(&mut self, config: &ServerConfig, client_id: &Text) -> ClientChannels {
        self.clients.get_or_insert_with(client_id, || ClientChannels {
            bids: Channel::claim_request(config.service.as_str(), client_id.as_str()),
            responses: Channel::response(config.service.as_str(), client_id.as_str()),
        })
    }
}

/// Returns the channel for stream frames to a client.
fn stream_channel(config: &ServerConfig, client_id: &Text) -> Channel {
    Channel::stream_to_client(config.service.as_str(), client_id.as_str())
}

/// Refuses to open a stream, unless the bus is full: nothing bounds the number of these frames.
fn refuse_stream(cx: &mut Context<'_>, stream_id: Text, channel: &Channel, cause: ErrorResponse) {
    if !cx.outputs.is_blocked() {
        let (_, mut cx) = cx.streams();
        frames::publish_close(&mut cx, Publish::Refusal, stream_id, channel, cause);
    }
}

/// Starts the handler. Requires the proof that the request has not expired.
fn start(outputs: &mut Outputs, handle: RequestHandle, pending: &mut Pending, _: NotExpired) {
    pending.state = RequestState::Running;
    outputs.event(ServerEvent::Run { request: handle });
}

fn publish_response(
    cx: &mut Context<'_>,
    kind: Publish,
    client: &ClientChannels,
    request_id: Text,
    result: Result<Bytes, ErrorResponse>,
) {
    let (server_id, sent_at) = (cx.config.id.clone(), cx.now.wall.as_unix_nanos());
    let mut frame = Frame::Response(Response { request_id, server_id, sent_at, result });
    let limits = &cx.config.limits.frame;
    if let Err(TooLarge { size, unit, limit }) = outgoing::check(&frame, &client.responses, limits) {
        cx.outputs.count(Reason::FrameLimit);
        let text = format!("the response is too large: {size} {unit} are over the limit of {limit}");
        if let Frame::Response(response) = &mut frame {
            response.result = Err(ErrorResponse::new(ErrorCode::ResourceExhausted, text));
        }
    }
    cx.outputs.publish(kind, &client.responses, frame);
}
