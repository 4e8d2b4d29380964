//! A request, seen from the server.
//!
//! ```text
//!                                  ┌──────── no claim required, or elected ────────┐
//!                                  │                                               ▼
//! ──checks──▶ Deciding ──bid──▶ Bidding ──granted──▶ (not expired?) ──▶ Running ──respond──▶ Answered
//!                │                 │                                      │
//!                └─reject─▶ Answered ◀┄┄ no bid, granted elsewhere, expired: (abandoned)
//! ```

use alloc::format;
use alloc::vec::Vec;
use core::time::Duration;

use bytes::Bytes;
use psrpc_proto::{
    Channel, ClaimRequest, ClaimResponse, ErrorCode, ErrorResponse, Frame, Request, Response, Text,
};

use super::{Context, Io, Owner};
use crate::cache::Cache;
use crate::config::ServerConfig;
use crate::dedup::{Admission, BucketKey, Dedup};
use crate::event::{Received, ServerEvent};
use crate::flight::{Flights, Vacancy};
use crate::map::HashKeys;
use crate::outgoing::{self, TooLarge};
use crate::output::Publish;
use crate::time::{Expired, Expiry, NotExpired};
use crate::timers::TimerKind;
use crate::{Dropped, Reason, RegistrationHandle, RequestHandle, Route, WallTime};

/// The requests of a server in flight, and those that it remembers.
pub(super) struct Requests {
    flights: Flights<RequestHandle, Pending>,
    dedup: Dedup,
    keys: HashKeys,
    clients: Cache<ClientChannels>,
}

/// A request in flight.
struct Pending {
    route: Route,
    registration: RegistrationHandle,
    client: ClientChannels,
    expiry: Expiry,
    may_elect: bool,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// The layer above decodes it and decides on a bid.
    Deciding,
    /// We bid, and wait for the client's grant.
    Bidding,
    /// The handler runs.
    Running,
    /// The response is on its way out, which a full bus holds up.
    Answered,
}

/// Where a client hears from us.
#[derive(Clone)]
struct ClientChannels {
    bids: Channel,
    responses: Channel,
}

impl Requests {
    pub(super) fn new(keys: HashKeys, config: &ServerConfig) -> Self {
        Self {
            flights: Flights::new(keys),
            dedup: Dedup::new(config.limits.remembered),
            clients: Cache::new(config.limits.cached_clients, keys),
            keys,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.flights.len()
    }

    pub(super) fn contains(&self, request: RequestHandle) -> bool {
        self.flights.get(request).is_some()
    }

    pub(super) fn remembered(&self) -> usize {
        self.dedup.remembered()
    }

    pub(super) fn is_deciding(&self, request: RequestHandle) -> bool {
        self.state(request) == Some(State::Deciding)
    }

    /// The id of a request in flight; empty when it is over.
    pub(super) fn id(&self, request: RequestHandle) -> Text {
        self.flights.get(request).map(|flight| flight.id.clone()).unwrap_or_default()
    }

    // --- frames ----------------------------------------------------------------------------------------------

    pub(super) fn on_request(
        &mut self,
        cx: &mut Context<'_>,
        registration: RegistrationHandle,
        route: Route,
        request: Request,
    ) {
        let (expiry, vacancy) = match self.check(cx, &request) {
            Ok(checked) => checked,
            Err((reason, Expired { by })) => return self.refuse(cx, &route, request, reason, by),
        };
        let Request { request_id, client_id, sent_at, metadata, payload, skip_claim, .. } = request;
        let request = self.flights.next();
        let properties = route.properties();
        let may_elect = skip_claim && properties.queue() && properties.require_claim;
        let pending = Pending {
            route: route.clone(),
            registration,
            client: self.channels(cx.config, &client_id),
            expiry,
            may_elect,
            state: State::Deciding,
        };
        let timer = cx.io.timers.arm(expiry.time(), TimerKind::Expiry, Owner::Request(request));
        self.flights.start(vacancy, request_id.clone(), timer, pending);
        cx.registry.hold(registration);
        cx.io.event(ServerEvent::Received(Received {
            request,
            route,
            client_id,
            request_id,
            sent_at: WallTime::from_unix_nanos(sent_at),
            deadline: expiry.time(),
            metadata,
            payload,
            may_elect,
        }));
    }

    /// Checks whether a request may come in, and remembers it.
    fn check(
        &mut self,
        cx: &mut Context<'_>,
        request: &Request,
    ) -> Result<(Expiry, Vacancy), (Reason, Expired)> {
        let Context { now, io, config, .. } = cx;
        let refuse = |reason| (reason, Expired { by: Duration::ZERO });
        if request.request_id.is_empty() || request.client_id.is_empty() {
            return Err(refuse(Reason::MissingId));
        }
        let expiry = WallTime::from_unix_nanos(request.expiry);
        let (sent_at, ahead) = match request.sent_at {
            // A peer that does not say. Its expiry is not moved to the horizon, which would be another for each duplicate.
            ..=0 => (now.wall, expiry),
            sent_at => (WallTime::from_unix_nanos(sent_at), WallTime::from_unix_nanos(sent_at)),
        };
        if ahead > now.wall + config.horizon {
            return Err((Reason::FarFuture, Expired { by: ahead.since(now.wall) }));
        }
        let expiry = Expiry::on_receipt(*now, sent_at, expiry, config.horizon, config.skew_allowance)
            .map_err(|expired| (Reason::Expired, expired))?;
        let identity = self.keys.identity(request.client_id.as_bytes(), request.request_id.as_bytes());
        let Some(vacancy) = self.flights.vacancy(&request.request_id) else {
            let known = self.dedup.knows(identity);
            return Err(refuse(if known { Reason::Duplicate } else { Reason::IdTaken }));
        };
        let (bucket, admission) = self.dedup.admit(*now, identity, &expiry);
        match admission {
            Admission::Duplicate => return Err(refuse(Reason::Duplicate)),
            Admission::Full => return Err(refuse(Reason::DedupFull)),
            Admission::New(None) => {}
            Admission::New(Some((at, Some(timer)))) => io.timers.rearm(timer, at, TimerKind::Forget),
            Admission::New(Some((at, None))) => {
                let timer = io.timers.arm(at, TimerKind::Forget, Owner::Bucket(bucket));
                self.dedup.armed(bucket, timer);
            }
        }
        // After it was remembered: a duplicate of what is refused here must not run later.
        if self.flights.len() >= config.limits.requests {
            return Err(refuse(Reason::RequestsFull));
        }
        Ok((expiry, vacancy))
    }

    fn refuse(
        &mut self,
        cx: &mut Context<'_>,
        route: &Route,
        request: Request,
        reason: Reason,
        late_by: Duration,
    ) {
        let Request { request_id, client_id, .. } = request;
        let full = match reason {
            Reason::RequestsFull => Some("the server has too many requests in flight"),
            Reason::DedupFull => Some("the server has too many requests to remember"),
            _ => None,
        };
        // On a queue no other server saw it, so the caller would wait for nobody.
        if let Some(text) = full.filter(|_| route.properties().queue()) {
            let error = ErrorResponse::new(ErrorCode::ResourceExhausted, Text::from_static(text));
            self.publish_refusal(cx, &client_id, request_id.clone(), error);
        }
        cx.io.dropped(Dropped { reason, request_id, peer: client_id, late_by });
    }

    /// A request for a method that is not served here, which no other server gets to see.
    pub(super) fn on_untaken(&mut self, cx: &mut Context<'_>, request: Request) {
        let Request { request_id, client_id, expiry, .. } = request;
        let expired = cx.now.wall >= WallTime::from_unix_nanos(expiry) + cx.config.skew_allowance;
        if !request_id.is_empty() && !client_id.is_empty() && !expired {
            let text = Text::from_static("method is not implemented");
            let error = ErrorResponse::new(ErrorCode::Unimplemented, text);
            self.publish_refusal(cx, &client_id, request_id.clone(), error);
        }
        cx.io.dropped(Dropped::of(Reason::Untaken, request_id, client_id));
    }

    pub(super) fn on_grant(&mut self, cx: &mut Context<'_>, grant: ClaimResponse) {
        let Some(request) = self.flights.find(&grant.request_id) else {
            return cx.io.count(Reason::Elsewhere);
        };
        let ours = grant.server_id == cx.config.id;
        match self.state(request) {
            Some(State::Bidding) if ours => self.run(cx, request),
            Some(State::Deciding | State::Bidding) if !ours => self.abandon(cx, request, Reason::ClaimLost),
            _ => cx.io.dropped(Dropped::of(Reason::Late, grant.request_id, Text::EMPTY)),
        }
    }

    // --- time and results ------------------------------------------------------------------------------------

    pub(super) fn on_timeout(&mut self, cx: &mut Context<'_>, request: RequestHandle) {
        let Some(flight) = self.flights.fired(request) else { return };
        let reason = match flight.state.state {
            State::Deciding | State::Bidding => Reason::NotGranted,
            State::Running => Reason::Overran,
            State::Answered => return self.end(cx, request),
        };
        self.abandon(cx, request, reason);
    }

    pub(super) fn on_forget(&mut self, cx: &mut Context<'_>, bucket: BucketKey) {
        if let Some(at) = self.dedup.forget(cx.now, bucket) {
            let timer = cx.io.timers.arm(at, TimerKind::Forget, Owner::Bucket(bucket));
            self.dedup.armed(bucket, timer);
        }
    }

    /// The bus did not take our bid, so no grant will come.
    pub(super) fn on_bid_failed(&mut self, cx: &mut Context<'_>, request: RequestHandle) {
        if self.state(request) == Some(State::Bidding) {
            self.abandon(cx, request, Reason::PublishFailed);
        }
    }

    /// A response has left, or the bus did not take it.
    pub(super) fn on_response_published(&mut self, cx: &mut Context<'_>, request: RequestHandle, left: bool) {
        if !left {
            cx.io.dropped(Dropped::of(Reason::PublishFailed, self.id(request), Text::EMPTY));
        }
        if self.state(request) == Some(State::Answered) {
            self.end(cx, request);
        }
    }

    // --- commands --------------------------------------------------------------------------------------------

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
        pending.state = State::Bidding;
        self.publish_bid(cx, request, affinity, false);
    }

    pub(super) fn elect(&mut self, cx: &mut Context<'_>, request: RequestHandle) {
        let Some(pending) = self.deciding(request) else { return };
        if !pending.may_elect {
            return self.bid(cx, request, 1.0);
        }
        if pending.expiry.check(cx.now).is_ok() {
            self.publish_bid(cx, request, 1.0, true);
        }
        self.run(cx, request);
    }

    pub(super) fn reject(&mut self, cx: &mut Context<'_>, request: RequestHandle, error: ErrorResponse) {
        if self.deciding(request).is_some() {
            cx.io.count(Reason::MalformedRequest);
            self.answer(cx, request, Err(error));
        }
    }

    pub(super) fn respond(
        &mut self,
        cx: &mut Context<'_>,
        request: RequestHandle,
        result: Result<Bytes, ErrorResponse>,
    ) {
        let Some(flight) = self.flights.get(request) else { return };
        if flight.state.state != State::Running {
            return;
        }
        // By the monotonic clock alone: a wall clock that jumps takes nothing from a handler that has started.
        if cx.now.time >= flight.state.expiry.time() {
            return self.abandon(cx, request, Reason::Overran);
        }
        self.answer(cx, request, result);
    }

    /// Abandons every request, in the order of their places, and tells no registration.
    pub(super) fn abandon_all(&mut self, io: &mut Io) {
        let requests: Vec<_> = self.flights.handles().collect();
        for request in requests {
            if let Some((_, Pending { state: State::Deciding | State::Bidding | State::Running, .. })) =
                self.flights.settle(request, &mut io.timers)
            {
                io.count(Reason::Killed);
                io.event(ServerEvent::Abandoned { request, reason: Reason::Killed });
            }
        }
    }

    /// Forgets all that it remembers.
    pub(super) fn forget(&mut self, io: &mut Io) {
        for timer in self.dedup.clear() {
            io.timers.disarm(timer);
        }
    }

    // --- transitions -----------------------------------------------------------------------------------------

    fn state(&self, request: RequestHandle) -> Option<State> {
        self.flights.get(request).map(|flight| flight.state.state)
    }

    fn deciding(&mut self, request: RequestHandle) -> Option<&mut Pending> {
        let pending = &mut self.flights.get_mut(request)?.state;
        (pending.state == State::Deciding).then_some(pending)
    }

    /// Runs a request, unless it has expired by now.
    fn run(&mut self, cx: &mut Context<'_>, request: RequestHandle) {
        let Some(flight) = self.flights.get_mut(request) else { return };
        match flight.state.expiry.check(cx.now) {
            Ok(proof) => start(cx.io, request, &mut flight.state, proof),
            Err(_) => self.abandon(cx, request, Reason::NotGranted),
        }
    }

    fn publish_bid(&self, cx: &mut Context<'_>, request: RequestHandle, affinity: f32, handling: bool) {
        let Some(flight) = self.flights.get(request) else { return };
        let (request_id, server_id) = (flight.id.clone(), cx.config.id.clone());
        let claim = ClaimRequest { request_id, server_id, affinity, handling };
        let what = if handling { Publish::Announcement(request) } else { Publish::Bid(request) };
        cx.io.publish(what, &flight.state.client.bids, Frame::ClaimRequest(claim));
    }

    fn answer(&mut self, cx: &mut Context<'_>, request: RequestHandle, result: Result<Bytes, ErrorResponse>) {
        let Some(flight) = self.flights.get_mut(request) else { return };
        flight.state.state = State::Answered;
        publish_response(cx, Publish::Response(request), &flight.state.client, flight.id.clone(), result);
    }

    fn abandon(&mut self, cx: &mut Context<'_>, request: RequestHandle, reason: Reason) {
        cx.io.count(reason);
        cx.io.event(ServerEvent::Abandoned { request, reason });
        self.end(cx, request);
    }

    fn end(&mut self, cx: &mut Context<'_>, request: RequestHandle) {
        if let Some((_, pending)) = self.flights.settle(request, &mut cx.io.timers) {
            cx.registry.release(cx.io, pending.registration);
        }
    }

    /// Answers a request that is not in flight. A full bus gets no such answers, since nothing bounds their number.
    fn publish_refusal(
        &mut self,
        cx: &mut Context<'_>,
        client_id: &Text,
        request_id: Text,
        error: ErrorResponse,
    ) {
        if !cx.io.is_blocked() {
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

/// Starts the handler, which takes the proof that the request has not expired (invariant I3).
fn start(io: &mut Io, handle: RequestHandle, pending: &mut Pending, _: NotExpired) {
    pending.state = State::Running;
    io.event(ServerEvent::Run { request: handle });
}

fn publish_response(
    cx: &mut Context<'_>,
    what: Publish,
    client: &ClientChannels,
    request_id: Text,
    result: Result<Bytes, ErrorResponse>,
) {
    let (server_id, sent_at) = (cx.config.id.clone(), cx.now.wall.as_unix_nanos());
    let mut frame = Frame::Response(Response { request_id, server_id, sent_at, result });
    let limits = &cx.config.limits.frame;
    if let Err(TooLarge { size, unit, limit }) = outgoing::check(&frame, &client.responses, limits) {
        cx.io.count(Reason::FrameLimit);
        let text = format!("the response is too large: {size} {unit} are over the limit of {limit}");
        if let Frame::Response(response) = &mut frame {
            response.result = Err(ErrorResponse::new(ErrorCode::ResourceExhausted, text));
        }
    }
    cx.io.publish(what, &client.responses, frame);
}
