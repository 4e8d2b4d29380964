//! The history of one call that finds one server, and the invariants that it must keep to.

use psrpc_engine::proto::{ClaimRequest, Text};
use psrpc_engine::{Failure, Reason, Reply, Time};

use super::answers::{Answers, Runs};
use super::fact::{Called, Run, Server};
use super::selection::Selection;
use super::violation::{Checked, Invariant};
use crate::forge;

/// All that is known of one call, or of the opening of a stream.
pub(super) struct CallHistory {
    made: Called,
    pub(super) must_succeed: bool,
    pub(super) resolved: bool,
    /// Servers that the bus brought the request to.
    reached: Vec<usize>,
    /// The bids that the client has heard, if it needs any.
    selection: Option<Selection>,
    /// Servers whose users elected to run it without a grant, which only a queue allows.
    electors: Vec<Text>,
    /// The server that the client granted it to.
    granted: Option<Text>,
    /// The server that the client granted it to or heard announce that it runs it, whichever came first; both, if
    /// the grant was on its way out by then.
    selected: Vec<Text>,
    /// It was canceled before any server was selected.
    withdrawn: bool,
    runs: Runs,
    pub(super) answers: Answers,
}

impl CallHistory {
    pub(super) fn new(made: Called, must_succeed: bool) -> Self {
        Self {
            made,
            must_succeed,
            resolved: false,
            reached: Vec::new(),
            selection: made.rules.map(|rules| Selection::new(rules, made.began)),
            electors: Vec::new(),
            granted: None,
            selected: Vec::new(),
            withdrawn: false,
            runs: Runs::default(),
            answers: Answers::default(),
        }
    }

    /// The bus brought the request to a server.
    pub(super) fn reached(&mut self, server: Server<'_>) {
        if !self.reached.contains(&server.life) {
            self.reached.push(server.life);
        }
    }

    /// The client heard a bid or an announcement.
    pub(super) fn bid_heard(&mut self, bid: &ClaimRequest, now: Time) {
        if !bid.handling {
            if let Some(selection) = &mut self.selection {
                selection.heard(bid, now);
            }
        } else if !self.resolved && self.selected.is_empty() {
            self.selected.push(bid.server_id.clone());
        }
    }

    /// Whether the client has heard of any server that it reached.
    pub(super) fn is_heard_of(&self) -> bool {
        !self.selected.is_empty() || self.selection.as_ref().is_some_and(|selection| selection.bids() > 0)
    }

    /// The server's user elected to run the request.
    pub(super) fn elected(&mut self, server: &Text) {
        if self.made.queue {
            self.electors.push(server.clone());
        }
    }

    /// The client granted the request.
    pub(super) fn granted(&mut self, server: &Text, now: Time, stuck: Option<Time>) -> Checked {
        if self.withdrawn {
            return Invariant::I4.violated(format!("granted to {server} after it was canceled"));
        }
        if let Some(other) = self.selected.first() {
            // An announcement may come while the grant waits for a bus that is full.
            let may_cross = self.is_at_many() || forge::is_stranger(server);
            if self.granted.is_some() || !may_cross {
                return Invariant::I2.violated(format!("granted to {server} though {other} was selected"));
            }
        }
        match &self.selection {
            Some(selection) => selection.check_grant(server, now, self.made.deadline, stuck)?,
            None => return Invariant::I5.violated(format!("granted to {server} what needs no grant")),
        }
        self.granted = Some(server.clone());
        self.selected.push(server.clone());
        Ok(())
    }

    /// A server started the handler.
    pub(super) fn ran(&mut self, run: Run<'_>) -> Checked {
        if self.selection.is_some() {
            self.may_run(run.server.id)?;
        }
        self.runs.add(run, self.made.expiry)
    }

    /// Checks that a server may run a claimed request.
    fn may_run(&self, server: &Text) -> Checked {
        let elected = self.electors.contains(server);
        if !elected && self.withdrawn {
            return Invariant::I4
                .violated(format!("ran on {server} though it was canceled before any grant"));
        }
        if !elected && self.granted.as_ref() != Some(server) {
            let granted = &self.granted;
            return Invariant::I2.violated(format!("ran on {server} without a grant ({granted:?} has it)"));
        }
        match self.runs.other_than(server) {
            Some(other) if !self.is_at_many() => {
                Invariant::I2.violated(format!("ran on {other} and {server}"))
            }
            _ => Ok(()),
        }
    }

    /// Whether the bus brought a request of a queue to two servers: all of them may elect to run it.
    fn is_at_many(&self) -> bool {
        self.made.queue && self.reached.len() > 1
    }

    /// The caller cancels it.
    pub(super) fn canceled(&mut self) {
        self.withdrawn |= !self.resolved && self.selected.is_empty();
    }

    /// It ended.
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
            let (said, heard) = (failure.evidence.bids, selection.bids());
            return Invariant::I5.violated(format!("says that {said} servers bid, of {heard}"));
        }
        if failure.reason != Reason::Answered {
            return Ok(());
        }
        // An error must be the selected server's; while there is none, any server's that saw the request.
        let may_answer = |who: &Text| self.selected.is_empty() || self.selected.contains(who);
        self.answers.check_failure(may_answer, failure)
    }

    fn check_reply(&self, reply: &Reply) -> Checked {
        let Reply { server_id: server, payload } = reply;
        if self.selection.is_some() && !self.selected.contains(server) {
            let selected = &self.selected;
            return Invariant::I5
                .violated(format!("took the response of {server}, selected was {selected:?}"));
        }
        self.answers.check_success(server, payload)
    }
}
