//! The unary call, seen from the client.
//!
//! ```text
//!           ┌──────────── a bid wins at once ────────────┐
//!           │                                            ▼
//! ──▶ Selecting ──timeouts──▶ verdict ──a server──▶ Waiting ──response──▶ (settled)
//!      │    │                    │                   ▲   ▲
//!      │    │                    └─ask──▶ Asking ────┘   │
//!      │    └──── a server announces that it runs it ────┘
//!      └─ no claim required: straight to Waiting, for any server
//! ```
//!
//! Deadline, cancellation, a failed publish and the close of the client settle it from every state.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::time::Duration;

use bytes::Bytes;
use psrpc_proto::{
    ClaimRequest, ClaimResponse, ErrorCode, ErrorResponse, Frame, Metadata, Request, Response, Text,
};

use crate::error::{BusError, CallError, Evidence, Failure};
use crate::event::{ClientEvent, Reply};
use crate::flight::{Flights, Vacancy};
use crate::limits::ClientLimits;
use crate::map::HashKeys;
use crate::outgoing;
use crate::output::{self, Publish};
use crate::selection::{Bids, Claim, Rules, Selection, Verdict};
use crate::timers::TimerKind;
use crate::{CallHandle, Dropped, Now, Reason, Route, Time};

/// A unary call to be made (PROTOCOL section 5).
#[derive(Clone, Debug)]
pub struct Call {
    /// The method and topic to call.
    pub route: Route,
    /// The user's message, encoded.
    pub payload: Bytes,
    /// What is sent along.
    pub metadata: Metadata,
    /// How long it may take; `None` for the client's default.
    pub timeout: Option<Duration>,
    /// When the caller gives up, if that is earlier.
    pub deadline: Option<Time>,
    /// How it picks its server.
    pub selection: Selection,
}

impl Call {
    /// A call with nothing but a message.
    pub fn new(route: Route, payload: impl Into<Bytes>) -> Self {
        Self {
            route,
            payload: payload.into(),
            metadata: Metadata::new(),
            timeout: None,
            deadline: None,
            selection: Selection::default(),
        }
    }
}

/// What the client's outputs, timers and counters are.
pub(super) type Io = output::Io<ClientEvent, Owner>;

/// What a timer of a client is for.
#[derive(Clone, Copy)]
pub(super) enum Owner {
    Call(CallHandle),
    Close,
}

/// The unary calls in flight.
pub(super) struct Calls {
    flights: Flights<CallHandle, Ongoing>,
    limits: ClientLimits,
    last_gap: Option<Time>,
}

/// A call in flight.
struct Ongoing {
    route: Route,
    started: Time,
    deadline: Time,
    state: State,
    /// Responses of a queue that came before the announcement of the server that sent them, on another subscription.
    parked: Vec<Response>,
    evidence: Evidence,
}

#[expect(
    clippy::large_enum_variant,
    reason = "most calls select, and an allocation for each would cost more"
)]
enum State {
    Selecting(Bids),
    /// The caller was asked to choose among these.
    Asking(Vec<Text>),
    /// Waiting for the response of this server; of any, if no claim was required.
    Waiting(Option<Text>),
}

impl Calls {
    pub(super) fn new(keys: HashKeys, limits: ClientLimits) -> Self {
        Self { flights: Flights::new(keys), limits, last_gap: None }
    }

    pub(super) fn len(&self) -> usize {
        self.flights.len()
    }

    pub(super) fn contains(&self, handle: CallHandle) -> bool {
        self.flights.get(handle).is_some()
    }

    /// The place of a request id that no call has.
    pub(super) fn vacancy(&self, request_id: &Text) -> Option<Vacancy> {
        self.flights.vacancy(request_id)
    }

    /// Checks what can be checked before a call is made.
    pub(super) fn check(
        &self,
        call: &Call,
        affinity_timeout: Duration,
        short_circuit: Duration,
    ) -> Result<Rules, CallError> {
        let (method, properties) = (call.route.method(), call.route.properties());
        if properties.multi() {
            return Err(CallError::Multi { method: method.clone() });
        }
        let rules = Rules::new(method, properties, &call.selection, affinity_timeout, short_circuit)?;
        let limit = self.limits.calls;
        if self.len() >= limit {
            return Err(CallError::TooManyCalls { limit });
        }
        Ok(rules)
    }

    pub(super) fn start(
        &mut self,
        now: Now,
        io: &mut Io,
        (request_id, vacancy, client_id): (Text, Vacancy, Text),
        call: Call,
        rules: Rules,
        timeout: Duration,
    ) -> Result<CallHandle, CallError> {
        let Call { route, payload, metadata, timeout: own, deadline, selection: _ } = call;
        let at_most = now.time + own.unwrap_or(timeout);
        let deadline = deadline.map_or(at_most, |deadline| deadline.min(at_most));
        let handle = self.flights.next();
        let frame = Frame::Request(Request {
            request_id: request_id.clone(),
            client_id,
            sent_at: now.wall.as_unix_nanos(),
            expiry: (now.wall + deadline.since(now.time)).as_unix_nanos(),
            multi: false,
            metadata,
            payload,
            skip_claim: route.properties().queue() && route.properties().require_claim,
        });
        outgoing::check(&frame, route.requests(), &self.limits.frame)?;
        if deadline > now.time {
            io.publish(Publish::Request(handle), route.requests(), frame);
        }
        let state = if route.properties().require_claim {
            State::Selecting(Bids::new(rules, now.time))
        } else {
            State::Waiting(None)
        };
        let timer = io.timers.arm(deadline, TimerKind::Deadline, Owner::Call(handle));
        let started = now.time;
        let (parked, evidence) = (Vec::new(), Evidence::default());
        let ongoing = Ongoing { route, started, deadline, state, parked, evidence };
        self.flights.start(vacancy, request_id, timer, ongoing);
        if deadline > now.time {
            self.wake(io, handle);
        } else {
            self.fail(io, handle, Failure::timed_out);
        }
        Ok(handle)
    }

    // --- frames ----------------------------------------------------------------------------------------------

    pub(super) fn on_claim(&mut self, now: Now, io: &mut Io, claim: ClaimRequest) {
        let drop = |reason| Dropped::of(reason, claim.request_id.clone(), claim.server_id.clone());
        let Some(handle) = self.flights.find(&claim.request_id) else {
            return io.dropped(drop(Reason::Late));
        };
        if claim.server_id.is_empty() {
            return io.dropped(drop(Reason::MissingId));
        }
        let limit = self.limits.bids_per_call;
        let ongoing = &mut self.flights.get_mut(handle).expect("found above").state;
        if now.time >= ongoing.deadline {
            return io.dropped(drop(Reason::Late));
        }
        match &mut ongoing.state {
            State::Selecting(_) | State::Asking(_) if claim.handling => {
                self.announced(io, handle, claim.server_id);
            }
            State::Selecting(bids) => {
                let bid = Claim { server_id: claim.server_id.clone(), affinity: claim.affinity };
                match bids.bid(now.time, bid, limit, &mut ongoing.evidence) {
                    Ok(true) => self.grant(io, handle, claim.server_id),
                    Ok(false) => self.wake(io, handle),
                    Err(reason) => io.dropped(drop(reason)),
                }
            }
            State::Asking(_) | State::Waiting(_) => io.dropped(drop(Reason::Late)),
        }
    }

    pub(super) fn on_response(&mut self, io: &mut Io, response: Response) {
        let drop = |response: Response, reason| Dropped::of(reason, response.request_id, response.server_id);
        let Some(handle) = self.flights.find(&response.request_id) else {
            return io.dropped(drop(response, Reason::Late));
        };
        let parked_per_call = self.limits.parked_per_call;
        let ongoing = &mut self.flights.get_mut(handle).expect("found above").state;
        let queue = ongoing.route.properties().queue();
        if response.result.is_err() {
            ongoing.evidence.errors += 1;
        }
        match (&mut ongoing.state, response.result) {
            (State::Waiting(Some(server)), result) if *server != response.server_id => {
                io.dropped(drop(Response { result, ..response }, Reason::NotSelected));
            }
            (State::Waiting(_), Ok(payload)) => {
                let reply = Reply { server_id: response.server_id, payload };
                self.settle(io, handle, |_| Ok(reply));
            }
            (State::Waiting(_), Err(error)) => {
                self.fail(io, handle, |evidence| Failure::answered(error, evidence));
            }
            (State::Selecting(bids), Err(error)) => {
                // Of a queue one server alone saw the request, so nothing better can come.
                if queue {
                    self.fail(io, handle, |evidence| Failure::answered(error, evidence));
                } else {
                    bids.error(error);
                }
            }
            (State::Selecting(_) | State::Asking(_), result @ Ok(_)) if queue => {
                let response = Response { result, ..response };
                if ongoing.parked.len() < parked_per_call {
                    ongoing.parked.push(response);
                } else {
                    io.dropped(drop(response, Reason::ParkedFull));
                }
            }
            (State::Selecting(_) | State::Asking(_), result) => {
                io.dropped(drop(Response { result, ..response }, Reason::NotSelected));
            }
        }
    }

    // --- time and results ------------------------------------------------------------------------------------

    pub(super) fn on_timeout(&mut self, now: Now, io: &mut Io, handle: CallHandle) {
        let Some(flight) = self.flights.fired(handle) else { return };
        if now.time >= flight.state.deadline {
            return self.on_deadline(io, handle);
        }
        let State::Selecting(_) = flight.state.state else { return self.wake(io, handle) };
        let waiting = core::mem::replace(&mut flight.state.state, State::Waiting(None));
        let State::Selecting(bids) = waiting else { unreachable!("checked above") };
        match bids.end() {
            Verdict::Server(server) => self.grant(io, handle, server),
            Verdict::Ask(claims) => {
                flight.state.evidence.asked = true;
                let bidders = claims.iter().map(|claim| claim.server_id.clone()).collect();
                flight.state.state = State::Asking(bidders);
                self.wake(io, handle);
                io.event(ClientEvent::Select { call: handle, claims });
            }
            Verdict::Error(error) => self.fail(io, handle, |evidence| Failure::answered(error, evidence)),
            Verdict::Nobody => self.fail(io, handle, Failure::no_server),
        }
    }

    /// A call that still selects ends as its bids have it, but grants nobody: the request expires this very moment.
    fn on_deadline(&mut self, io: &mut Io, handle: CallHandle) {
        let Some(flight) = self.flights.get_mut(handle) else { return };
        let waiting = core::mem::replace(&mut flight.state.state, State::Waiting(None));
        let State::Selecting(bids) = waiting else {
            return self.fail(io, handle, Failure::timed_out);
        };
        flight.state.evidence.best = bids.best().cloned();
        match bids.end_unasked() {
            Verdict::Error(error) => self.fail(io, handle, |evidence| Failure::answered(error, evidence)),
            Verdict::Nobody => self.fail(io, handle, Failure::no_server),
            Verdict::Server(_) | Verdict::Ask(_) => self.fail(io, handle, Failure::timed_out),
        }
    }

    pub(super) fn on_request_published(
        &mut self,
        io: &mut Io,
        handle: CallHandle,
        result: Result<Option<u64>, BusError>,
    ) {
        let Some(flight) = self.flights.get_mut(handle) else { return };
        let ongoing = &mut flight.state;
        match result {
            Ok(receivers) => ongoing.evidence.receivers = receivers,
            // A server that bids has seen the request, whatever the bus believes.
            Err(_) if ongoing.evidence.bids > 0 || ongoing.evidence.selected.is_some() => {}
            Err(error) => {
                self.fail(io, handle, |evidence| Failure::bus(Reason::PublishFailed, error, evidence));
            }
        }
    }

    pub(super) fn on_grant_published(
        &mut self,
        io: &mut Io,
        handle: CallHandle,
        result: Result<Option<u64>, BusError>,
    ) {
        if let Err(error) = result {
            self.fail(io, handle, |evidence| Failure::bus(Reason::PublishFailed, error, evidence));
        }
    }

    pub(super) fn on_gap(&mut self, now: Now) {
        self.last_gap = Some(now.time);
    }

    // --- commands --------------------------------------------------------------------------------------------

    pub(super) fn cancel(&mut self, io: &mut Io, handle: CallHandle) {
        if let Some(flight) = self.flights.get_mut(handle) {
            if let State::Selecting(bids) = &flight.state.state {
                flight.state.evidence.best = bids.best().cloned();
            }
            self.fail(io, handle, Failure::canceled);
        }
    }

    /// The caller's answer to [`ClientEvent::Select`]. At the deadline it is too late to grant anybody.
    pub(super) fn select(
        &mut self,
        now: Now,
        io: &mut Io,
        handle: CallHandle,
        choice: Result<Option<Text>, ErrorResponse>,
    ) {
        let Some(flight) = self.flights.get_mut(handle) else { return };
        let State::Asking(bidders) = &flight.state.state else { return };
        match choice {
            Ok(Some(_)) if now.time >= flight.state.deadline => self.fail(io, handle, Failure::timed_out),
            Ok(Some(server)) if bidders.contains(&server) => self.grant(io, handle, server),
            Ok(Some(stranger)) => {
                let text = alloc::format!("the selection function chose {stranger:?}, which made no bid");
                let error = ErrorResponse::new(ErrorCode::Internal, text);
                self.fail(io, handle, |evidence| Failure::selection(error, evidence));
            }
            Ok(None) => self.fail(io, handle, Failure::no_server),
            Err(error) => self.fail(io, handle, |evidence| Failure::selection(error, evidence)),
        }
    }

    /// Fails every call, in the order of their places.
    pub(super) fn fail_all(&mut self, io: &mut Io, failure: impl Fn(Evidence) -> Box<Failure>) {
        let handles: Vec<_> = self.flights.handles().collect();
        for handle in handles {
            self.fail(io, handle, &failure);
        }
    }

    // --- transitions -----------------------------------------------------------------------------------------

    /// Sets the timer to what comes first: the end of the selection, or of the call.
    fn wake(&mut self, io: &mut Io, handle: CallHandle) {
        let Some(flight) = self.flights.get_mut(handle) else { return };
        let ends = match &flight.state.state {
            State::Selecting(bids) => bids.ends(),
            State::Asking(_) | State::Waiting(_) => None,
        };
        let deadline = (flight.state.deadline, TimerKind::Deadline);
        let (at, kind) = ends.filter(|(at, _)| *at < deadline.0).unwrap_or(deadline);
        flight.wake(&mut io.timers, at, kind, Owner::Call(handle));
    }

    fn grant(&mut self, io: &mut Io, handle: CallHandle, server: Text) {
        let Some(flight) = self.flights.get_mut(handle) else { return };
        let grant = ClaimResponse { request_id: flight.id.clone(), server_id: server.clone() };
        let ongoing = &mut flight.state;
        io.publish(Publish::Grant(handle), ongoing.route.grants(), Frame::ClaimResponse(grant));
        ongoing.evidence.selected = Some(server.clone());
        ongoing.state = State::Waiting(Some(server));
        drop_unselected(io, core::mem::take(&mut ongoing.parked));
        self.wake(io, handle);
    }

    /// A server runs the call without a grant: it is selected, and may have answered already.
    fn announced(&mut self, io: &mut Io, handle: CallHandle, server: Text) {
        let Some(flight) = self.flights.get_mut(handle) else { return };
        let ongoing = &mut flight.state;
        ongoing.evidence.selected = Some(server.clone());
        ongoing.state = State::Waiting(Some(server));
        let parked = core::mem::take(&mut ongoing.parked);
        self.wake(io, handle);
        for response in parked {
            self.on_response(io, response);
        }
    }

    fn fail(&mut self, io: &mut Io, handle: CallHandle, failure: impl FnOnce(Evidence) -> Box<Failure>) {
        self.settle(io, handle, |evidence| Err(failure(evidence)));
    }

    fn settle(
        &mut self,
        io: &mut Io,
        handle: CallHandle,
        outcome: impl FnOnce(Evidence) -> Result<Reply, Box<Failure>>,
    ) {
        let Some((_, ongoing)) = self.flights.settle(handle, &mut io.timers) else { return };
        let Ongoing { started, parked, mut evidence, .. } = ongoing;
        drop_unselected(io, parked);
        evidence.gap = self.last_gap.is_some_and(|gap| gap >= started);
        let outcome = outcome(evidence);
        if let Err(failure) = &outcome {
            io.count(failure.reason);
        }
        io.event(ClientEvent::Resolved { call: handle, outcome });
    }
}

fn drop_unselected(io: &mut Io, parked: Vec<Response>) {
    for Response { request_id, server_id, .. } in parked {
        io.dropped(Dropped::of(Reason::NotSelected, request_id, server_id));
    }
}
