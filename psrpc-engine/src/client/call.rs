//! The client's side of a unary call.
//!
//! ```text
//!           ┌───────────────── a bid wins at once ─────────────────┐
//!           │                                                      ▼
//! ──▶ Selecting ──timeout──▶ verdict ──────────a server──────▶ Waiting ──response──▶ (settled)
//!      │    │                    │                              ▲  ▲
//!      │    │                    └─ask──▶ AwaitingChoice ───────┘  │
//!      │    └──── a server announces that it runs the call ────────┘
//!      └─ no claim required: straight to Waiting, for any server
//! ```
//!
//! The deadline, a cancellation and the close of the client settle the call in every state. A
//! failed publish of the grant settles it too. A publish of the request that failed, or that
//! reached no subscriber, does so unless a bid or an announcement shows that the request arrived.
//! If the request reached no subscriber, a call that waits for one publishes it again instead. On
//! a queue, a response that arrives during selection settles the call, because only one server has
//! seen the request. At the deadline, nothing more is accepted and no server is granted.
//!
//! Opening a stream is also a call. Its response is an ack. The call succeeds with the stream, or
//! fails if the server closes the stream.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use bytes::Bytes;
use psrpc_proto::{
    ClaimRequest, ClaimResponse, ErrorCode, ErrorResponse, Frame, Metadata, Request, Response, Text,
};

use super::context::{Context, Owner};
use super::observed::Observed;
use super::responders::Responders;
use super::selection::{Bids, Rules, Selection, Verdict};
use crate::config::ClientConfig;
use crate::core::budget::{Budget, Step};
use crate::core::bus_error::BusError;
use crate::core::handle::{CallHandle, StreamHandle};
use crate::core::in_flight::{InFlight, Vacancy};
use crate::core::map::HashKeys;
use crate::core::outputs::Publish;
use crate::core::time::{Now, Time};
use crate::core::timers::{GRANULARITY, TimerKind};
use crate::error::{CallError, Evidence, Failure};
use crate::event::{ClientEvent, Reply};
use crate::reason::{Dropped, Reason};
use crate::wire::bid::Bid;
use crate::wire::outgoing;
use crate::wire::route::Route;

/// A unary call (PROTOCOL section 5).
#[derive(Clone, Debug)]
pub struct Call {
    /// The method and topic to call.
    pub route: Route,
    /// The encoded message.
    pub payload: Bytes,
    /// The metadata to send with the request.
    pub metadata: Metadata,
    /// The timeout; `None` for the client's default.
    pub timeout: Option<Duration>,
    /// The caller's deadline. The call ends at its timeout or at this time, whichever is earlier.
    pub deadline: Option<Time>,
    /// How the call picks its server.
    pub selection: Selection,
    /// Whether to wait for a subscriber if the bus knows that there is none: the request is
    /// published again until it reaches one, or the selection or the call ends. If `false`, the
    /// call fails at once, with [`Reason::NobodySubscribed`].
    pub waits_for_subscriber: bool,
}

impl Call {
    /// Creates a call without metadata and with default options.
    pub fn new(route: Route, payload: impl Into<Bytes>) -> Self {
        Self {
            route,
            payload: payload.into(),
            metadata: Metadata::new(),
            timeout: None,
            deadline: None,
            selection: Selection::default(),
            waits_for_subscriber: false,
        }
    }
}

/// The unary calls in flight.
pub(super) struct Calls {
    in_flight: InFlight<CallHandle, Ongoing>,
    responders: Responders,
    last_gap: Option<Time>,
    /// When the bus last refused a lock, and its error.
    last_lock_refusal: Option<(Time, String)>,
}

/// A checked call that is ready to start.
pub(super) struct Start {
    pub(super) request_id: Text,
    pub(super) vacancy: Vacancy,
    pub(super) frame: Frame,
    pub(super) deadline: Time,
    pub(super) route: Route,
    pub(super) rules: Rules,
    pub(super) opens: Option<StreamHandle>,
    pub(super) waits_for_subscriber: bool,
}

/// A call in flight.
struct Ongoing {
    route: Route,
    /// The stream that the call opens.
    opens: Option<StreamHandle>,
    started: Time,
    deadline: Time,
    state: CallState,
    observed: Observed,
    /// The request, if the call waits for a subscriber and none is known yet.
    unheard: Option<Box<UnheardRequest>>,
}

/// A request to publish again until it reaches a subscriber.
struct UnheardRequest {
    frame: Frame,
    /// When to publish it again. `None` while its latest publish may have reached somebody.
    at: Option<Time>,
    /// The pause before that. It doubles each time.
    pause: Duration,
}

impl UnheardRequest {
    const FIRST_PAUSE: Duration = Duration::from_millis(5);
    const LONGEST_PAUSE: Duration = Duration::from_millis(250);
}

enum CallState {
    Selecting(Bids),
    /// Waiting for the caller to choose among these servers.
    AwaitingChoice(Vec<Text>),
    /// Waiting for the response of this server, or of any server if no claim is required.
    Waiting(Option<Text>),
}

impl Ongoing {
    /// Returns when the selection ends by itself, and why; `None` if only the deadline ends it.
    fn selection_end(&self) -> Option<(Time, TimerKind)> {
        match &self.state {
            CallState::Selecting(bids) => bids.next_timeout(),
            CallState::AwaitingChoice(_) | CallState::Waiting(_) => None,
        }
    }

    /// Returns when to publish the request again; `None` if a server has replied to it, or its
    /// latest publish may have reached somebody.
    fn republish_at(&self) -> Option<Time> {
        self.unheard.as_ref().filter(|_| self.is_unheard())?.at
    }

    /// Returns `true` if the bus delivered the request to no subscriber, and no server replied to
    /// it either.
    fn is_unheard(&self) -> bool {
        let is_selected = matches!(self.state, CallState::AwaitingChoice(_) | CallState::Waiting(Some(_)));
        !is_selected && self.observed.is_unheard()
    }
}

impl Calls {
    pub(super) fn new(keys: HashKeys) -> Self {
        let in_flight = InFlight::new(keys);
        Self { in_flight, responders: Responders::new(), last_gap: None, last_lock_refusal: None }
    }

    pub(super) fn len(&self) -> usize {
        self.in_flight.len()
    }

    pub(super) fn contains(&self, handle: CallHandle) -> bool {
        self.in_flight.get(handle).is_some()
    }

    /// Returns `true` if a call waits for the response, and no longer selects a server.
    pub(super) fn is_waiting(&self, handle: CallHandle) -> bool {
        self.in_flight.get(handle).is_some_and(|entry| matches!(entry.state.state, CallState::Waiting(_)))
    }

    /// Returns `true` if the deadline of a call has passed. Until its timer fires, the call is
    /// still in flight, but nothing more is accepted for it.
    pub(super) fn is_overdue(&self, now: Time, handle: CallHandle) -> bool {
        self.in_flight.get(handle).is_some_and(|entry| now >= entry.state.deadline)
    }

    /// Returns `true` if the call has this request id.
    pub(super) fn has_id(&self, handle: CallHandle, request_id: &Text) -> bool {
        self.in_flight.get(handle).is_some_and(|entry| entry.id == *request_id)
    }

    /// Validates a call before it starts.
    pub(super) fn check(
        &self,
        route: &Route,
        selection: &Selection,
        config: &ClientConfig,
    ) -> Result<Rules, CallError> {
        if route.properties().multi() {
            return Err(CallError::Multi { method: route.method().clone() });
        }
        let rules = Rules::new(route, selection, config.affinity_timeout, config.short_circuit_timeout)?;
        let limit = config.limits.calls;
        if self.len() >= limit {
            return Err(CallError::TooManyCalls { limit });
        }
        Ok(rules)
    }

    /// Starts a unary call.
    pub(super) fn call(
        &mut self,
        cx: &mut Context<'_>,
        call: Call,
        rules: Rules,
    ) -> Result<CallHandle, CallError> {
        let Call { route, payload, metadata, timeout, deadline, selection: _, waits_for_subscriber } = call;
        let deadline = cx.deadline(timeout, deadline);
        let (request_id, vacancy) = self.draw_id(cx);
        let frame = Frame::Request(Request {
            request_id: request_id.clone(),
            client_id: cx.config.id.clone(),
            sent_at: cx.now.wall.as_unix_nanos(),
            expiry: cx.expiry(deadline),
            multi: false,
            metadata,
            payload,
            skip_claim: route.is_queue(),
        });
        outgoing::check(&frame, route.requests(), &cx.config.limits.frame)?;
        let opens = None;
        let start = Start { request_id, vacancy, frame, deadline, route, rules, opens, waits_for_subscriber };
        Ok(self.start(cx, start))
    }

    /// Draws a request id that no other call has.
    pub(super) fn draw_id(&self, cx: &mut Context<'_>) -> (Text, Vacancy) {
        loop {
            let request_id = cx.ids.request();
            if let Some(vacancy) = self.in_flight.vacancy(&request_id) {
                return (request_id, vacancy);
            }
        }
    }

    /// Returns the handle that the next call will get.
    pub(super) fn next(&self) -> CallHandle {
        self.in_flight.next()
    }

    pub(super) fn start(&mut self, cx: &mut Context<'_>, start: Start) -> CallHandle {
        let Start { request_id, vacancy, frame, deadline, route, rules, opens, waits_for_subscriber } = start;
        let handle = self.in_flight.next();
        let in_time = deadline > cx.now.time;
        let unheard = waits_for_subscriber.then(|| {
            let (frame, pause) = (frame.clone(), UnheardRequest::FIRST_PAUSE);
            Box::new(UnheardRequest { frame, at: None, pause })
        });
        if in_time {
            cx.outputs.publish(Publish::Request(handle), route.requests(), frame);
        }
        let state = if route.properties().require_claim {
            CallState::Selecting(Bids::new(rules, cx.now.time))
        } else {
            CallState::Waiting(None)
        };
        let timer = cx.outputs.timers.arm(deadline, TimerKind::Deadline, Owner::Call(handle));
        let started = cx.now.time;
        let observed = Observed::default();
        let ongoing = Ongoing { route, opens, started, deadline, state, observed, unheard };
        self.in_flight.insert(vacancy, request_id, Some(timer), ongoing);
        if in_time {
            self.arm(cx, handle);
        } else {
            self.fail(cx, handle, Failure::timed_out);
        }
        handle
    }

    // --- frames ----------------------------------------------------------------------------------

    pub(super) fn on_claim(&mut self, cx: &mut Context<'_>, claim: ClaimRequest) {
        let drop = |reason| Dropped::of(reason, claim.request_id.clone(), claim.server_id.clone());
        let Some(handle) = self.in_flight.find(&claim.request_id) else {
            // On Redis, announcements usually arrive after the response that ended the call, so
            // they are only counted.
            match claim.handling {
                true => cx.outputs.count(Reason::Late),
                false => cx.outputs.dropped(drop(Reason::Late)),
            }
            return;
        };
        if claim.server_id.is_empty() {
            return cx.outputs.dropped(drop(Reason::MissingId));
        }
        let limit = cx.config.limits.bids_per_call;
        let (entry, keys) = self.in_flight.get_mut_with_keys(handle).expect("found above");
        let ongoing = &mut entry.state;
        if cx.now.time >= ongoing.deadline {
            ongoing.observed.late_bids += 1;
            return cx.outputs.dropped(drop(Reason::Late));
        }
        match &mut ongoing.state {
            CallState::Selecting(_) | CallState::AwaitingChoice(_) if claim.handling => {
                self.select_announcer(cx, handle, claim.server_id);
            }
            CallState::Selecting(bids) => {
                let bid = Bid { server_id: claim.server_id.clone(), affinity: claim.affinity };
                match bids.bid(cx.now.time, bid, keys, limit, &mut ongoing.observed) {
                    Ok(true) => self.grant(cx, handle, claim.server_id),
                    Ok(false) => self.arm(cx, handle),
                    Err(reason) => cx.outputs.dropped(drop(reason)),
                }
            }
            CallState::AwaitingChoice(_) | CallState::Waiting(_) => cx.outputs.dropped(drop(Reason::Late)),
        }
    }

    pub(super) fn on_response(&mut self, cx: &mut Context<'_>, response: Response) {
        let drop = |response: Response, reason| Dropped::of(reason, response.request_id, response.server_id);
        let Some(handle) = self.in_flight.find(&response.request_id) else {
            let second = self.responders.is_second(&response);
            let reason = if second { Reason::SecondServer } else { Reason::Late };
            return cx.outputs.dropped(drop(response, reason));
        };
        let ongoing = &mut self.in_flight.get_mut(handle).expect("found above").state;
        if cx.now.time >= ongoing.deadline {
            return cx.outputs.dropped(drop(response, Reason::Late));
        }
        if response.result.is_err() {
            ongoing.observed.errors += 1;
        }
        let takes_any = ongoing.route.is_queue();
        match &mut ongoing.state {
            CallState::Waiting(Some(selected)) if *selected != response.server_id => {
                cx.outputs.dropped(drop(response, Reason::NotSelected));
            }
            // Another server may still be selected.
            CallState::Selecting(bids) if !takes_any => match response.result {
                Err(error) => {
                    ongoing.observed.record_refusal(&response.server_id, &error);
                    bids.error(error);
                }
                Ok(_) => cx.outputs.dropped(drop(response, Reason::NotSelected)),
            },
            CallState::AwaitingChoice(_) if !takes_any => {
                cx.outputs.dropped(drop(response, Reason::NotSelected));
            }
            CallState::Waiting(None) => {
                self.responders.record(response.request_id.clone(), response.server_id.clone());
                self.settle_with_response(cx, handle, response);
            }
            CallState::Selecting(_) | CallState::AwaitingChoice(_) | CallState::Waiting(Some(_)) => {
                self.settle_with_response(cx, handle, response);
            }
        }
    }

    /// Handles the ack of the server that accepted the stream.
    pub(super) fn on_opened(&mut self, cx: &mut Context<'_>, handle: CallHandle) {
        self.succeed(cx, handle, Reply { server_id: Text::EMPTY, payload: Bytes::new() });
    }

    /// Handles a server's close of the stream that a call is opening.
    pub(super) fn on_refused(&mut self, cx: &mut Context<'_>, handle: CallHandle, error: ErrorResponse) {
        let Some(entry) = self.in_flight.get_mut(handle) else { return };
        entry.state.observed.errors += 1;
        match &mut entry.state.state {
            // Another server may still be selected.
            CallState::Selecting(bids) => {
                entry.state.observed.record_refusal(&Text::EMPTY, &error);
                bids.error(error);
            }
            CallState::AwaitingChoice(_) => {}
            CallState::Waiting(_) => self.fail(cx, handle, |evidence| Failure::answered(error, evidence)),
        }
    }

    // --- time and results ------------------------------------------------------------------------

    pub(super) fn on_timeout(&mut self, cx: &mut Context<'_>, handle: CallHandle) {
        let Some(entry) = self.in_flight.timer_fired(handle) else { return };
        if cx.now.time >= entry.state.deadline {
            return self.on_deadline(cx, handle);
        }
        let is_over = entry.state.selection_end().is_some_and(|(at, _)| at <= cx.now.time);
        if !is_over && entry.state.republish_at().is_some_and(|at| at <= cx.now.time) {
            return self.publish_again(cx, handle);
        }
        let CallState::Selecting(bids) = &mut entry.state.state else { return self.arm(cx, handle) };
        if !is_over {
            // The timer was armed to publish the request again, and a server has replied since.
            return self.arm(cx, handle);
        }
        match bids.end() {
            Verdict::Server(server) => self.grant(cx, handle, server),
            Verdict::Ask(bids) => {
                self.ask(cx, handle, bids);
                self.arm(cx, handle);
            }
            Verdict::Error(error) => self.fail(cx, handle, |evidence| Failure::answered(error, evidence)),
            Verdict::Nobody => self.fail(cx, handle, Failure::no_server),
        }
    }

    /// Ends a call at its deadline. A call in selection ends with the verdict on its bids, but
    /// grants no server, because the request expires at this moment. Its selection function is
    /// still called and has one millisecond to respond: its error becomes the call's error.
    fn on_deadline(&mut self, cx: &mut Context<'_>, handle: CallHandle) {
        let Some(entry) = self.in_flight.get_mut(handle) else { return };
        let CallState::Selecting(bids) = &mut entry.state.state else {
            return self.fail(cx, handle, Failure::timed_out);
        };
        match bids.end() {
            Verdict::Server(_) => self.fail(cx, handle, Failure::timed_out),
            Verdict::Ask(bids) => {
                let (at, owner) = (cx.now.time + GRANULARITY, Owner::Call(handle));
                entry.arm(&mut cx.outputs.timers, at, TimerKind::Deadline, owner);
                self.ask(cx, handle, bids);
            }
            Verdict::Error(error) => self.fail(cx, handle, |evidence| Failure::answered(error, evidence)),
            Verdict::Nobody => self.fail(cx, handle, Failure::no_server),
        }
    }

    /// Asks the caller to choose among the bids.
    fn ask(&mut self, cx: &mut Context<'_>, handle: CallHandle, bids: Vec<Bid>) {
        let Some(entry) = self.in_flight.get_mut(handle) else { return };
        entry.state.observed.asked = true;
        entry.state.state = CallState::AwaitingChoice(bids.iter().map(|bid| bid.server_id.clone()).collect());
        cx.outputs.event(ClientEvent::Select { call: handle, bids });
    }

    pub(super) fn on_request_published(
        &mut self,
        cx: &mut Context<'_>,
        handle: CallHandle,
        result: Result<Option<u64>, BusError>,
    ) {
        let Some(entry) = self.in_flight.get_mut(handle) else { return };
        let ongoing = &mut entry.state;
        match result {
            Ok(receivers) => {
                ongoing.observed.receivers = receivers;
                self.on_receivers(cx, handle);
            }
            // A server that bid has seen the request, even if the bus reports a failure.
            Err(_) if ongoing.observed.bids > 0 || matches!(ongoing.state, CallState::Waiting(Some(_))) => {}
            Err(error) => {
                self.fail(cx, handle, |evidence| Failure::bus(Reason::PublishFailed, error, evidence));
            }
        }
    }

    /// Handles the number of subscribers that the request reached. If there is none, fails the call
    /// or waits, unless a server has replied nevertheless.
    fn on_receivers(&mut self, cx: &mut Context<'_>, handle: CallHandle) {
        let Some(entry) = self.in_flight.get_mut(handle) else { return };
        let ongoing = &mut entry.state;
        if !ongoing.is_unheard() {
            ongoing.unheard = None;
            return;
        }
        let Some(unheard) = &mut ongoing.unheard else {
            return self.fail(cx, handle, Failure::nobody_subscribed);
        };
        unheard.at = Some(cx.now.time + unheard.pause);
        unheard.pause = (unheard.pause * 2).min(UnheardRequest::LONGEST_PAUSE);
        self.arm(cx, handle);
    }

    /// Republishes a request that reached no subscriber.
    fn publish_again(&mut self, cx: &mut Context<'_>, handle: CallHandle) {
        let Some(entry) = self.in_flight.get_mut(handle) else { return };
        let Ongoing { route, unheard, observed, .. } = &mut entry.state;
        if let Some(unheard) = unheard {
            unheard.at = None;
            // Until the bus reports the result, a server may have seen the request.
            observed.receivers = None;
            cx.outputs.publish(Publish::Request(handle), route.requests(), unheard.frame.clone());
        }
        self.arm(cx, handle);
    }

    pub(super) fn on_grant_published(
        &mut self,
        cx: &mut Context<'_>,
        handle: CallHandle,
        result: Result<Option<u64>, BusError>,
    ) {
        if let Err(error) = result {
            self.fail(cx, handle, |evidence| Failure::bus(Reason::PublishFailed, error, evidence));
        }
    }

    /// Returns the flag that records whether the request was handed to the bus.
    pub(super) fn sent_flag(&mut self, call: CallHandle) -> Option<&mut bool> {
        self.in_flight.get_mut(call).map(|entry| &mut entry.state.observed.sent)
    }

    pub(super) fn on_gap(&mut self, now: Now) {
        self.last_gap = Some(now.time);
    }

    pub(super) fn on_lock_refused(&mut self, now: Now, cause: String) {
        self.last_lock_refusal = Some((now.time, cause));
    }

    // --- commands --------------------------------------------------------------------------------

    pub(super) fn cancel(&mut self, cx: &mut Context<'_>, handle: CallHandle) {
        if let Some(entry) = self.in_flight.get(handle) {
            let route = &entry.state.route;
            if cx.config.tells_cancellation && !route.is_stream() {
                let claimed = route.properties().require_claim;
                let channel = if claimed { route.grants() } else { route.requests() };
                let cancellation = ClaimResponse { request_id: entry.id.clone(), server_id: Text::EMPTY };
                cx.outputs.publish(Publish::Cancellation, channel, Frame::ClaimResponse(cancellation));
            }
            self.fail(cx, handle, Failure::canceled);
        }
    }

    /// Handles the caller's choice after [`ClientEvent::Select`]. At the deadline it is too late to
    /// grant a server.
    pub(super) fn select(
        &mut self,
        cx: &mut Context<'_>,
        handle: CallHandle,
        choice: Result<Option<Text>, ErrorResponse>,
    ) {
        let Some(entry) = self.in_flight.get_mut(handle) else { return };
        let CallState::AwaitingChoice(bidders) = &entry.state.state else { return };
        match choice {
            Ok(Some(_)) if cx.now.time >= entry.state.deadline => {
                self.fail(cx, handle, Failure::timed_out);
            }
            Ok(Some(server)) if bidders.contains(&server) => self.grant(cx, handle, server),
            Ok(Some(server)) => {
                let text = alloc::format!("the selection function chose {server:?}, which made no bid");
                let error = ErrorResponse::new(ErrorCode::Internal, text);
                self.fail(cx, handle, |evidence| Failure::selection(error, evidence));
            }
            Ok(None) => self.fail(cx, handle, Failure::no_server),
            Err(error) => self.fail(cx, handle, |evidence| Failure::selection(error, evidence)),
        }
    }

    /// Returns the next call from `cursor` on, and advances `cursor`.
    pub(super) fn walk(&self, cursor: &mut usize, budget: &mut Budget) -> Step<CallHandle> {
        self.in_flight.walk(cursor, budget)
    }

    // --- transitions -----------------------------------------------------------------------------

    /// Sets the timer to the earliest of the end of the selection, the next publish of the request,
    /// and the deadline.
    fn arm(&mut self, cx: &mut Context<'_>, handle: CallHandle) {
        let Some(entry) = self.in_flight.get_mut(handle) else { return };
        let timeout = entry.state.selection_end();
        let deadline = (entry.state.deadline, TimerKind::Deadline);
        let (at, kind) = timeout.filter(|(at, _)| *at < deadline.0).unwrap_or(deadline);
        let again = entry.state.republish_at().filter(|again| *again < at);
        let (at, kind) = again.map_or((at, kind), |again| (again, TimerKind::Republish));
        entry.arm(&mut cx.outputs.timers, at, kind, Owner::Call(handle));
    }

    fn grant(&mut self, cx: &mut Context<'_>, handle: CallHandle, server: Text) {
        let Some(entry) = self.in_flight.get_mut(handle) else { return };
        let grant = ClaimResponse { request_id: entry.id.clone(), server_id: server.clone() };
        let ongoing = &mut entry.state;
        cx.outputs.publish(Publish::Grant(handle), ongoing.route.grants(), Frame::ClaimResponse(grant));
        ongoing.state = CallState::Waiting(Some(server));
        self.arm(cx, handle);
    }

    /// Selects a server that announced that it runs the call without a grant.
    fn select_announcer(&mut self, cx: &mut Context<'_>, handle: CallHandle, server: Text) {
        let Some(entry) = self.in_flight.get_mut(handle) else { return };
        entry.state.state = CallState::Waiting(Some(server));
        self.arm(cx, handle);
    }

    /// Settles a call with the response of its server.
    fn settle_with_response(&mut self, cx: &mut Context<'_>, handle: CallHandle, response: Response) {
        let Response { server_id, result, .. } = response;
        match result {
            Ok(payload) => self.succeed(cx, handle, Reply { server_id, payload }),
            Err(error) => self.fail(cx, handle, |evidence| Failure::answered(error, evidence)),
        }
    }

    pub(super) fn fail(
        &mut self,
        cx: &mut Context<'_>,
        call: CallHandle,
        failure: impl FnOnce(Evidence) -> Box<Failure>,
    ) {
        let Some((_, ongoing)) = self.in_flight.settle(call, &mut cx.outputs.timers) else { return };
        let Ongoing { route, opens, started, state, observed, .. } = ongoing;
        let (best, selected) = match state {
            CallState::Selecting(bids) => (bids.into_best(), None),
            CallState::AwaitingChoice(_) => (None, None),
            CallState::Waiting(server) => (None, server),
        };
        let Observed { sent, receivers, bids, below_minimum, late_bids, errors, asked, refusals } = observed;
        let (may_skip_claim, gap) = (route.may_skip_claim(), self.last_gap.is_some_and(|gap| gap >= started));
        let lock_refusal =
            self.last_lock_refusal.as_ref().filter(|(at, _)| *at >= started && route.is_queue());
        let lock_refusal = lock_refusal.map(|(_, cause)| cause.clone());
        let failure = failure(Evidence {
            unsent: !sent,
            receivers,
            bids,
            below_minimum,
            best,
            selected,
            late_bids,
            asked,
            errors,
            refusals,
            may_skip_claim,
            gap,
            lock_refusal,
        });
        cx.outputs.count(failure.reason);
        resolve(cx, call, opens, Err(failure));
    }

    fn succeed(&mut self, cx: &mut Context<'_>, call: CallHandle, reply: Reply) {
        let Some((_, Ongoing { opens, .. })) = self.in_flight.settle(call, &mut cx.outputs.timers) else {
            return;
        };
        resolve(cx, call, opens, Ok(reply));
    }
}

/// Reports how a call ended.
fn resolve(
    cx: &mut Context<'_>,
    call: CallHandle,
    opens: Option<StreamHandle>,
    outcome: Result<Reply, Box<Failure>>,
) {
    match opens {
        Some(stream) => cx.opened(call, stream, outcome.map(drop)),
        None => cx.outputs.event(ClientEvent::Resolved { call, outcome }),
    }
}
