//! The multi call: every server answers once.
//!
//! It ends at its deadline or when the expected number of servers have answered. A cancellation and
//! the close of the client end it early. If no server has answered, so does a publish that failed
//! or reached no subscriber.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::time::Duration;

use bytes::Bytes;
use psrpc_proto::{Frame, Metadata, Request, Response, Text};

use super::context::{Context, Owner};
use crate::core::budget::{Budget, Step};
use crate::core::bus_error::BusError;
use crate::core::handle::MultiHandle;
use crate::core::in_flight::InFlight;
use crate::core::map::HashKeys;
use crate::core::outputs::Publish;
use crate::core::time::Time;
use crate::core::timers::TimerKind;
use crate::error::{CallError, Evidence, Failure};
use crate::event::ClientEvent;
use crate::reason::{Dropped, Reason};
use crate::wire::outgoing;
use crate::wire::route::Route;

/// A multi call (PROTOCOL section 7).
#[derive(Clone, Debug)]
pub struct MultiCall {
    /// The method and topic to call.
    pub route: Route,
    /// The encoded message.
    pub payload: Bytes,
    /// The metadata to send with the request.
    pub metadata: Metadata,
    /// How long to collect responses; `None` for the client's default timeout.
    pub timeout: Option<Duration>,
    /// The caller's deadline. The call ends at its timeout or at this time, whichever is earlier.
    pub deadline: Option<Time>,
    /// The number of responses, errors included, that ends the call; `None` to collect until the
    /// deadline.
    pub expected: Option<usize>,
}

impl MultiCall {
    /// Creates a call without metadata and with default options.
    pub fn new(route: Route, payload: impl Into<Bytes>) -> Self {
        let (payload, metadata) = (payload.into(), Metadata::new());
        Self { route, payload, metadata, timeout: None, deadline: None, expected: None }
    }
}

/// The multi calls in flight.
pub(super) struct MultiCalls(InFlight<MultiHandle, Ongoing>);

struct Ongoing {
    deadline: Time,
    expected: Option<usize>,
    /// The servers that have answered, sorted, to detect a second response.
    answered: Vec<Text>,
    /// Whether the request was handed to the bus.
    sent: bool,
    /// How many subscribers the bus delivered the request to, if the bus knows.
    receivers: Option<u64>,
}

impl MultiCalls {
    pub(super) fn new(keys: HashKeys) -> Self {
        Self(InFlight::new(keys))
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn find(&self, request_id: &Text) -> Option<MultiHandle> {
        self.0.find(request_id)
    }

    pub(super) fn call(&mut self, cx: &mut Context<'_>, call: MultiCall) -> Result<MultiHandle, CallError> {
        let MultiCall { route, payload, metadata, timeout, deadline, expected } = call;
        if !route.properties().multi() {
            return Err(CallError::NotMulti { method: route.method().clone() });
        }
        let limit = cx.config.limits.calls;
        if self.len() >= limit {
            return Err(CallError::TooManyCalls { limit });
        }
        let deadline = cx.deadline(timeout, deadline);
        let (request_id, vacancy) = loop {
            let request_id = cx.ids.request();
            if let Some(vacancy) = self.0.vacancy(&request_id) {
                break (request_id, vacancy);
            }
        };
        let frame = Frame::Request(Request {
            request_id: request_id.clone(),
            client_id: cx.config.id.clone(),
            sent_at: cx.now.wall.as_unix_nanos(),
            expiry: cx.expiry(deadline),
            multi: true,
            metadata,
            payload,
            skip_claim: false,
        });
        outgoing::check(&frame, route.requests(), &cx.config.limits.frame)?;
        let call = self.0.next();
        let timer = cx.outputs.timers.arm(deadline, TimerKind::Deadline, Owner::Multi(call));
        let ongoing = Ongoing { deadline, expected, answered: Vec::new(), sent: false, receivers: None };
        self.0.insert(vacancy, request_id, Some(timer), ongoing);
        if expected == Some(0) {
            self.end(cx, call, Ok(()));
        } else if deadline <= cx.now.time {
            self.on_timeout(cx, call);
        } else {
            cx.outputs.publish(Publish::MultiRequest(call), route.requests(), frame);
        }
        Ok(call)
    }

    pub(super) fn on_response(&mut self, cx: &mut Context<'_>, call: MultiHandle, response: Response) {
        let Some(entry) = self.0.get_mut(call) else { return };
        let Response { request_id, server_id, result, .. } = response;
        let drop = |reason| Dropped::of(reason, request_id, server_id.clone());
        let Ongoing { deadline, expected, answered, .. } = &mut entry.state;
        if cx.now.time >= *deadline {
            return cx.outputs.dropped(drop(Reason::Late));
        }
        if server_id.is_empty() {
            return cx.outputs.dropped(drop(Reason::MissingId));
        }
        let index = match answered.binary_search(&server_id) {
            Err(index) => index,
            Ok(_) => return cx.outputs.dropped(drop(Reason::SecondResponse)),
        };
        if answered.len() >= cx.config.limits.responses_per_call {
            return cx.outputs.dropped(drop(Reason::ResponsesFull));
        }
        answered.insert(index, server_id.clone());
        let complete = *expected == Some(answered.len());
        cx.outputs.event(ClientEvent::Response { call, server_id, result });
        if complete {
            self.end(cx, call, Ok(()));
        }
    }

    /// Handles the timer of a call.
    pub(super) fn on_timer(&mut self, cx: &mut Context<'_>, call: MultiHandle) {
        self.0.timer_fired(call);
        self.on_timeout(cx, call);
    }

    fn on_timeout(&mut self, cx: &mut Context<'_>, call: MultiHandle) {
        let Some(entry) = self.0.get(call) else { return };
        let outcome = match &entry.state {
            Ongoing { answered, .. } if !answered.is_empty() => Ok(()),
            // The evidence tells the caller whether any server can have seen the request.
            Ongoing { sent, receivers, .. } => {
                let evidence = Evidence { unsent: !sent, receivers: *receivers, ..Evidence::default() };
                Err(Failure::timed_out(evidence))
            }
        };
        self.end(cx, call, outcome);
    }

    pub(super) fn contains(&self, call: MultiHandle) -> bool {
        self.0.get(call).is_some()
    }

    /// Returns the flag that records whether the request was handed to the bus.
    pub(super) fn sent_flag(&mut self, call: MultiHandle) -> Option<&mut bool> {
        self.0.get_mut(call).map(|entry| &mut entry.state.sent)
    }

    pub(super) fn on_published(
        &mut self,
        cx: &mut Context<'_>,
        call: MultiHandle,
        result: Result<Option<u64>, BusError>,
    ) {
        let Some(entry) = self.0.get_mut(call) else { return };
        match result {
            Ok(Some(0)) if entry.state.answered.is_empty() => {
                let evidence = Evidence { receivers: Some(0), ..Evidence::default() };
                self.end(cx, call, Err(Failure::nobody_subscribed(evidence)));
            }
            Ok(receivers) => entry.state.receivers = receivers,
            // A server that answered has seen the request, even if the bus reports a failure.
            Err(error) if entry.state.answered.is_empty() => {
                let failure = Failure::bus(Reason::PublishFailed, error, Evidence::default());
                self.end(cx, call, Err(failure));
            }
            _ => {}
        }
    }

    /// Ends a call without an event.
    pub(super) fn cancel(&mut self, cx: &mut Context<'_>, call: MultiHandle) {
        self.0.settle(call, &mut cx.outputs.timers);
    }

    /// Returns the next call from `cursor` on, and advances `cursor`.
    pub(super) fn walk(&self, cursor: &mut usize, budget: &mut Budget) -> Step<MultiHandle> {
        self.0.walk(cursor, budget)
    }

    pub(super) fn end(&mut self, cx: &mut Context<'_>, call: MultiHandle, outcome: Result<(), Box<Failure>>) {
        if self.0.settle(call, &mut cx.outputs.timers).is_none() {
            return;
        }
        if let Err(failure) = &outcome {
            cx.outputs.count(failure.reason);
        }
        cx.outputs.event(ClientEvent::MultiEnded { call, outcome });
    }
}
