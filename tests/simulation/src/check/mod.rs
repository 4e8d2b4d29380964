//! The judge: an independent model of what must hold, fed with facts.

mod call;
mod fact;
mod violation;

use std::collections::{BTreeMap, BTreeSet};

use psrpc_engine::proto::{Frame, Text};
use psrpc_engine::{Failure, Reason, Reply, Time};

use self::call::CallHistory;
pub use self::fact::{Called, Fact, Run};
pub use self::violation::{Checked, Invariant, Violation};
use crate::payload;
use crate::report::Report;

/// Knows all calls of a run, and reports the first fact that cannot be.
///
/// It knows the engines by what they put out alone, and shares nothing with them but the wire.
pub struct Model {
    now: Time,
    calls: Vec<CallHistory>,
    /// The calls whose requests were published.
    requests: BTreeMap<Text, usize>,
    /// The calls that are not resolved, by their deadlines.
    due: BTreeSet<(Time, usize)>,
    /// What was canceled in this step, and whether in company.
    canceled: Vec<(usize, bool)>,
    /// What was closed in this step.
    closed: Vec<usize>,
    /// What resolved as canceled in this step.
    seen_canceled: Vec<usize>,
}

impl Model {
    /// A model of a run in which nothing has happened yet.
    pub fn new() -> Self {
        Self {
            now: Time::ZERO,
            calls: Vec::new(),
            requests: BTreeMap::new(),
            due: BTreeSet::new(),
            canceled: Vec::new(),
            closed: Vec::new(),
            seen_canceled: Vec::new(),
        }
    }

    /// How many calls were made, which is the number of the next one.
    pub fn calls(&self) -> usize {
        self.calls.len()
    }

    /// How many of them had to succeed.
    pub fn fresh_calls(&self) -> usize {
        self.calls.iter().filter(|call| call.made.must_succeed).count()
    }

    /// The call that a request was published for.
    pub(crate) fn call_of(&self, request: &Text) -> Option<usize> {
        self.requests.get(request).copied()
    }

    /// Takes note of a fact.
    ///
    /// # Errors
    ///
    /// When it violates an invariant.
    pub fn note(&mut self, fact: Fact<'_>) -> Checked {
        match fact {
            Fact::TimeIs(now) => self.time_is(now),
            Fact::Called(made) => {
                self.due.insert((made.deadline, self.calls.len()));
                self.calls.push(CallHistory::new(made));
                Ok(())
            }
            Fact::Published(frame) => self.published(frame),
            Fact::ServerHeard(server, Frame::Request(request)) => {
                self.tell(&request.request_id, |call| call.reached(server))
            }
            Fact::ClientHeard(Frame::ClaimRequest(bid)) => {
                self.tell(&bid.request_id, |call| call.bid_heard(bid))
            }
            Fact::ServerHeard(..) | Fact::ClientHeard(_) => Ok(()),
            Fact::Elected { server, request } => self.tell(request, |call| call.elected(server)),
            Fact::Ran(run) if self.call_of(run.request).is_some() => {
                self.judge(run.request, |call| call.ran(run))
            }
            Fact::Ran(run) => Invariant::I2.violated(format!("{run:?} of what nobody called")),
            Fact::Answered { server, request, result } => {
                self.tell(request, |call| call.answered(server, result))
            }
            Fact::Canceled { call, in_company } => {
                if !self.calls[call].resolved {
                    self.calls[call].canceled();
                    self.canceled.push((call, in_company));
                }
                Ok(())
            }
            Fact::Closed { client } => {
                self.closed.push(client);
                Ok(())
            }
            Fact::Resolved { call, outcome } => self.resolved(call, outcome),
            Fact::StepEnded => self.step_ended(),
            Fact::Ticked { at, next } => match next {
                Some(next) if next <= at => {
                    Invariant::I18.violated(format!("handled {at:?}, and then wants {next:?}"))
                }
                _ => Ok(()),
            },
            Fact::Left { in_flight: 0, remembered: 0, timer: None } => Ok(()),
            Fact::Left { in_flight, remembered, timer } => Invariant::I9.violated(format!(
                "{in_flight} in flight, {remembered} remembered and timer {timer:?} left over"
            )),
        }
    }

    fn time_is(&mut self, now: Time) -> Checked {
        self.now = now;
        match self.due.first() {
            Some((deadline, call)) if *deadline < now => {
                Invariant::I1.violated(format!("call {call} is not resolved at {now:?}, due at {deadline:?}"))
            }
            _ => Ok(()),
        }
    }

    fn published(&mut self, frame: &Frame) -> Checked {
        match frame {
            Frame::Request(request) => {
                if let Some(call) = payload::number(&request.payload) {
                    self.requests.insert(request.request_id.clone(), call);
                }
                Ok(())
            }
            Frame::ClaimResponse(grant) => {
                self.judge(&grant.request_id, |call| call.granted(&grant.server_id))
            }
            _ => Ok(()),
        }
    }

    fn resolved(&mut self, call: Option<usize>, outcome: &Result<Reply, Box<Failure>>) -> Checked {
        let Some(call) = call else {
            return Invariant::I1.violated("a call resolved that nobody made");
        };
        if matches!(outcome, Err(failure) if failure.reason == Reason::Canceled) {
            self.seen_canceled.push(call);
        }
        let history = &mut self.calls[call];
        self.due.remove(&(history.made.deadline, call));
        history.resolved(self.now, outcome).map_err(|violation| violation.at(format_args!("call {call}")))
    }

    fn step_ended(&mut self) -> Checked {
        for (call, in_company) in std::mem::take(&mut self.canceled) {
            let ended_before = in_company && self.calls[call].resolved;
            if !ended_before && !self.seen_canceled.contains(&call) {
                return Invariant::I4
                    .violated(format!("call {call} was canceled, and its caller does not see it"));
            }
        }
        self.seen_canceled.clear();
        for client in std::mem::take(&mut self.closed) {
            let pending = self.due.iter().find(|(_, call)| self.calls[*call].made.client == client);
            if let Some((_, call)) = pending {
                return Invariant::I15
                    .violated(format!("client {client} is closed, and call {call} pending"));
            }
        }
        Ok(())
    }

    /// Tells the call of a request something; nobody, if nobody made it.
    fn tell(&mut self, request: &Text, tell: impl FnOnce(&mut CallHistory)) -> Checked {
        self.judge(request, |call| {
            tell(call);
            Ok(())
        })
    }

    /// Has the call of a request judge something.
    fn judge(&mut self, request: &Text, judge: impl FnOnce(&mut CallHistory) -> Checked) -> Checked {
        let Some(call) = self.call_of(request) else { return Ok(()) };
        judge(&mut self.calls[call]).map_err(|violation| violation.at(format_args!("call {call}")))
    }
}

impl Default for Model {
    fn default() -> Self {
        Self::new()
    }
}

/// Checks that two runs of a seed went the same way.
///
/// # Errors
///
/// When their traces differ.
pub fn same_trace(first: &Report, second: &Report) -> Checked {
    match (first.trace_hash, second.trace_hash) {
        (first, second) if first == second => Ok(()),
        (first, second) => Invariant::I17.violated(format!("trace {first:016x}, then {second:016x}")),
    }
}
