//! The history of one call that one server runs, and its invariants.

use psrpc_engine::proto::{ClaimRequest, Text};
use psrpc_engine::{Failure, Reason, Reply, Time};

use super::fact::{CallParameters, HandlerStart, Server};
use super::responses::{Responses, Runs};
use super::selection_rules::SelectionHistory;
use super::violation::{Checked, Invariant};
use crate::frame_forger;

/// The history of one call, or of the opening of a stream.
pub(super) struct CallHistory {
    parameters: CallParameters,
    pub(super) must_succeed: bool,
    pub(super) resolved: bool,
    /// The servers that received the request.
    reached: Vec<usize>,
    /// The bids that the client has received, if the call needs a grant.
    selection: Option<SelectionHistory>,
    /// The servers that skip the claim, which only a queue request allows.
    claim_skippers: Vec<Text>,
    /// The servers that have announced the request.
    announcers: Vec<Text>,
    /// The server that the client granted the call to.
    granted: Option<Text>,
    /// The selected server: the first that the client granted the call to or received an
    /// announcement from. There are two if the announcement arrived while the grant waited for the
    /// bus.
    selected: Vec<Text>,
    /// Whether it was canceled before a server was selected.
    withdrawn: bool,
    runs: Runs,
    pub(super) responses: Responses,
    /// The servers whose responses the client received before its deadline.
    responded: Vec<Text>,
    /// Whether the client learned before its deadline that a server has accepted the stream.
    is_accepted: bool,
}

impl CallHistory {
    pub(super) fn new(parameters: CallParameters, must_succeed: bool) -> Self {
        Self {
            parameters,
            must_succeed,
            resolved: false,
            reached: Vec::new(),
            selection: parameters.rules.map(|rules| SelectionHistory::new(rules, parameters.began)),
            claim_skippers: Vec::new(),
            announcers: Vec::new(),
            granted: None,
            selected: Vec::new(),
            withdrawn: false,
            runs: Runs::default(),
            responses: Responses::default(),
            responded: Vec::new(),
            is_accepted: false,
        }
    }

    /// Notes that a server received the request.
    pub(super) fn reached(&mut self, server: Server<'_>) {
        if !self.reached.contains(&server.incarnation) {
            self.reached.push(server.incarnation);
        }
    }

    /// Notes that the client received a bid or an announcement.
    pub(super) fn bid_received(&mut self, bid: &ClaimRequest, now: Time) {
        if now >= self.parameters.deadline {
            return;
        }
        if !bid.handling {
            if let Some(selection) = &mut self.selection {
                selection.received(bid, now);
            }
        } else if !self.resolved && self.selected.is_empty() {
            self.selected.push(bid.server_id.clone());
        }
    }

    /// Notes that the client received a response.
    pub(super) fn response_received(&mut self, server: &Text, now: Time) {
        if now < self.parameters.deadline {
            self.responded.push(server.clone());
        }
    }

    /// Notes that the client received a frame of the server that accepted the stream.
    pub(super) fn stream_received(&mut self, now: Time) {
        self.is_accepted |= now < self.parameters.deadline;
    }

    /// Returns `true` if the client has received a bid or an announcement.
    pub(super) fn has_claim(&self) -> bool {
        !self.selected.is_empty() || self.selection.as_ref().is_some_and(|selection| selection.bids() > 0)
    }

    /// Notes that a server skips the claim.
    pub(super) fn skipped_claim(&mut self, server: &Text) {
        if self.parameters.queue {
            self.claim_skippers.push(server.clone());
        }
    }

    /// Notes that a server announces the request.
    pub(super) fn announced(&mut self, server: &Text) {
        self.announcers.push(server.clone());
    }

    /// Checks that a server may publish a response.
    pub(super) fn check_response(&self, server: &Text) -> Checked {
        let may_respond = self.selection.is_none()
            || !self.claim_skippers.contains(server)
            || self.announcers.contains(server)
            || self.granted.as_ref() == Some(server);
        if may_respond {
            return Ok(());
        }
        Invariant::I2.violated(format!("{server} responds without a grant or an announcement"))
    }

    /// Checks a grant of the client.
    pub(super) fn granted(&mut self, server: &Text, now: Time, last_blocked: Option<Time>) -> Checked {
        if self.withdrawn {
            return Invariant::I4.violated(format!("granted to {server} after it was canceled"));
        }
        if let Some(other) = self.selected.first() {
            // An announcement may arrive while the grant waits for room on the bus.
            let may_cross = self.reached_many() || frame_forger::is_forged_server(server);
            if self.granted.is_some() || !may_cross {
                return Invariant::I2.violated(format!("granted to {server} although {other} was selected"));
            }
        }
        let deadline = self.parameters.deadline;
        if now >= deadline && last_blocked.is_none_or(|last_blocked| last_blocked < deadline) {
            let late = now.since(deadline);
            return Invariant::I1.violated(format!("granted to {server} {late:?} past its deadline"));
        }
        match &self.selection {
            Some(selection) => selection.check_grant(server, now, deadline, last_blocked)?,
            None => {
                return Invariant::I5.violated(format!("granted to {server}, but the call needs no grant"));
            }
        }
        self.granted = Some(server.clone());
        self.selected.push(server.clone());
        Ok(())
    }

    /// Checks the start of a handler.
    pub(super) fn ran(&mut self, run: HandlerStart<'_>) -> Checked {
        if self.selection.is_some() {
            self.may_run(run.server.id)?;
        }
        self.runs.add(run, self.parameters.expiry)
    }

    /// Checks that a server may run a claimed request.
    fn may_run(&self, server: &Text) -> Checked {
        let skipped = self.claim_skippers.contains(server);
        if !skipped && self.withdrawn {
            return Invariant::I4
                .violated(format!("ran on {server} although it was canceled before any grant"));
        }
        if !skipped && self.granted.as_ref() != Some(server) {
            let granted = &self.granted;
            return Invariant::I2.violated(format!("ran on {server} without a grant ({granted:?} has it)"));
        }
        match self.runs.other_than(server) {
            Some(other) if !self.reached_many() => {
                Invariant::I2.violated(format!("ran on {other} and {server}"))
            }
            _ => Ok(()),
        }
    }

    /// Returns `true` if several servers received a queue request: each of them may skip the claim.
    fn reached_many(&self) -> bool {
        self.parameters.queue && self.reached.len() > 1
    }

    /// Notes that the caller cancels the call.
    pub(super) fn canceled(&mut self) {
        self.withdrawn |= !self.resolved && self.selected.is_empty();
    }

    /// Checks how it ended.
    pub(super) fn resolved(&mut self, outcome: Result<&Reply, &Failure>) -> Checked {
        self.resolved = true;
        match outcome {
            Ok(reply) => self.check_reply(reply),
            Err(failure) => self.failed(failure),
        }
    }

    /// Checks how it failed.
    pub(super) fn failed(&self, failure: &Failure) -> Checked {
        if self.must_succeed {
            return Invariant::I16.violated(format!("a fresh call without faults failed: {failure}"));
        }
        if let Some(selection) = &self.selection
            && failure.evidence.bids as usize > selection.bids()
        {
            let (reported, received) = (failure.evidence.bids, selection.bids());
            return Invariant::I5.violated(format!("reports {reported} bids of {received} received"));
        }
        if failure.reason == Reason::NobodySubscribed && !self.reached.is_empty() {
            return Invariant::I5.violated(format!("ended as if nobody had received it: {failure}"));
        }
        self.check_choice(failure)?;
        if failure.reason != Reason::Answered {
            return Ok(());
        }
        // The error must come from the selected server, or before selection from any server that
        // responded in time.
        let is_eligible = |id: &Text| {
            self.responded.contains(id) && (self.selected.is_empty() || self.selected.contains(id))
        };
        self.responses.check_failure(is_eligible, failure)
    }

    /// Checks that the caller was asked to select a server, if its selection ended without a
    /// winner.
    pub(super) fn check_choice(&self, failure: &Failure) -> Checked {
        let ends_selection = matches!(
            failure.reason,
            Reason::TimedOut | Reason::NoResponse | Reason::NotAcceptable | Reason::Answered
        );
        let must_ask = self.parameters.deadline > self.parameters.began
            && self.selected.is_empty()
            && self.selection.as_ref().is_some_and(SelectionHistory::must_ask);
        if ends_selection && must_ask && !failure.evidence.asked {
            return Invariant::I5
                .violated(format!("ended without calling the selection function: {failure}"));
        }
        Ok(())
    }

    /// Checks that a server has accepted the stream in time.
    pub(super) fn check_taken(&self) -> Checked {
        if self.is_accepted {
            return Ok(());
        }
        Invariant::I1.violated("it is open, but no server accepted it before its deadline")
    }

    fn check_reply(&self, reply: &Reply) -> Checked {
        let Reply { server_id: server, payload } = reply;
        if !self.responded.contains(server) {
            return Invariant::I1.violated(format!("accepted the late response of {server}"));
        }
        // On a queue, a server that responds before a grant or an announcement has received the
        // request.
        let is_first = self.parameters.queue && self.selected.is_empty();
        if self.selection.is_some() && !is_first && !self.selected.contains(server) {
            let selected = &self.selected;
            return Invariant::I5
                .violated(format!("accepted the response of {server}, but {selected:?} was selected"));
        }
        self.responses.check_success(server, payload)
    }
}
