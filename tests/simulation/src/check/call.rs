//! The history of one call, and the invariants that it must keep to.

use bytes::Bytes;
use psrpc_engine::proto::{ClaimRequest, ErrorResponse, Text};
use psrpc_engine::{Failure, Reason, Reply, Time};

use super::fact::{Called, Run};
use super::violation::{Checked, Invariant};

/// All that is known of one call.
pub(super) struct CallHistory {
    pub(super) made: Called,
    pub(super) resolved: bool,
    /// Servers that the bus brought the request to.
    reached: Vec<Text>,
    /// Servers whose bid or announcement the client has heard.
    bidders: Vec<Text>,
    /// Servers whose users elected to run it without a grant, which only a queue allows.
    electors: Vec<Text>,
    /// The server that the client granted it to.
    granted: Option<Text>,
    /// The server that the client granted it to or heard announce that it runs it, whichever came first; both, if
    /// the grant was on its way out by then.
    selected: Vec<Text>,
    /// It was canceled before any server was selected.
    withdrawn: bool,
    runs: Vec<Text>,
    answers: Vec<(Text, Result<Bytes, ErrorResponse>)>,
}

impl CallHistory {
    pub(super) fn new(made: Called) -> Self {
        Self {
            made,
            resolved: false,
            reached: Vec::new(),
            bidders: Vec::new(),
            electors: Vec::new(),
            granted: None,
            selected: Vec::new(),
            withdrawn: false,
            runs: Vec::new(),
            answers: Vec::new(),
        }
    }

    /// The bus brought the request to a server.
    pub(super) fn reached(&mut self, server: &Text) {
        if !self.reached.contains(server) {
            self.reached.push(server.clone());
        }
    }

    /// The client heard a bid or an announcement.
    pub(super) fn bid_heard(&mut self, bid: &ClaimRequest) {
        if bid.affinity.is_finite() {
            self.bidders.push(bid.server_id.clone());
        }
        if bid.handling && !self.resolved && self.selected.is_empty() {
            self.selected.push(bid.server_id.clone());
        }
    }

    /// The server's user elected to run the request.
    pub(super) fn elected(&mut self, server: &Text) {
        if self.made.properties.queue() {
            self.electors.push(server.clone());
        }
    }

    /// The client granted the request.
    pub(super) fn granted(&mut self, server: &Text) -> Checked {
        if self.withdrawn {
            return Invariant::I4.violated(format!("granted to {server} after it was canceled"));
        }
        if let Some(other) = self.selected.first() {
            // An announcement may come while the grant waits for a bus that is full.
            if self.granted.is_some() || !self.is_at_many() {
                return Invariant::I2.violated(format!("granted to {server} though {other} was selected"));
            }
        }
        if !self.bidders.contains(server) {
            return Invariant::I5.violated(format!("granted to {server}, which made no bid"));
        }
        self.granted = Some(server.clone());
        self.selected.push(server.clone());
        Ok(())
    }

    /// A server started the handler.
    pub(super) fn ran(&mut self, run: Run<'_>) -> Checked {
        let Run { server, wall, allowance, .. } = run;
        let end = self.made.expiry + allowance;
        if wall >= end {
            let late = wall.since(end);
            return Invariant::I3.violated(format!("{server} started its handler {late:?} past the end"));
        }
        if self.runs.contains(server) {
            return Invariant::I2.violated(format!("ran twice on {server}"));
        }
        if self.made.properties.require_claim {
            self.may_run(server)?;
        }
        self.runs.push(server.clone());
        Ok(())
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
        match self.runs.first() {
            Some(other) if !self.is_at_many() => {
                Invariant::I2.violated(format!("ran on {other} and {server}"))
            }
            _ => Ok(()),
        }
    }

    /// Whether the bus brought a request of a queue to two servers: all of them may elect to run it.
    fn is_at_many(&self) -> bool {
        self.made.properties.queue() && self.reached.len() > 1
    }

    /// A server's user answered the request.
    pub(super) fn answered(&mut self, server: &Text, result: Result<Bytes, ErrorResponse>) {
        self.answers.push((server.clone(), result));
    }

    /// The caller cancels it.
    pub(super) fn canceled(&mut self) {
        self.withdrawn |= !self.resolved && self.selected.is_empty();
    }

    /// It ended.
    pub(super) fn resolved(&mut self, at: Time, outcome: &Result<Reply, Box<Failure>>) -> Checked {
        if self.resolved {
            return Invariant::I1.violated("resolved twice");
        }
        self.resolved = true;
        if at > self.made.deadline {
            let late = at.since(self.made.deadline);
            return Invariant::I1.violated(format!("resolved {late:?} past its deadline"));
        }
        match outcome {
            Ok(reply) => self.check_reply(reply),
            Err(failure) if self.made.must_succeed => {
                Invariant::I16.violated(format!("a fresh call without faults failed: {failure}"))
            }
            Err(failure) if failure.reason == Reason::Answered => self.check_error(failure),
            Err(_) => Ok(()),
        }
    }

    fn check_reply(&self, reply: &Reply) -> Checked {
        let Reply { server_id: server, payload } = reply;
        if self.made.properties.require_claim && !self.selected.contains(server) {
            let selected = &self.selected;
            return Invariant::I5
                .violated(format!("took the response of {server}, selected was {selected:?}"));
        }
        match self.answer_of(server) {
            Some(Ok(given)) if given == payload => Ok(()),
            Some(Err(error)) => {
                Invariant::I6.violated(format!("{server} answered {error:?}, a success came out"))
            }
            given => Invariant::I5.violated(format!("{server} answered {given:?}, {payload:?} came out")),
        }
    }

    /// An error must be the selected server's; while there is none, any server's that saw the request.
    fn check_error(&self, failure: &Failure) -> Checked {
        let may_answer = |who: &Text| self.selected.is_empty() || self.selected.contains(who);
        let mut answers = self.answers.iter().filter(|(who, _)| may_answer(who)).map(|(_, result)| result);
        let same = |result: &&Result<_, _>| matches!(result, Err(error) if is_same(error, failure));
        let given = answers.clone().find(same).or_else(|| answers.next());
        match given {
            Some(Err(error)) if is_same(error, failure) => Ok(()),
            Some(Ok(payload)) => Invariant::I6.violated(format!("answered {payload:?}, {failure} came out")),
            given => Invariant::I5.violated(format!("answered {given:?}, {failure} came out")),
        }
    }

    fn answer_of(&self, server: &Text) -> Option<&Result<Bytes, ErrorResponse>> {
        self.answers.iter().find(|(who, _)| who == server).map(|(_, result)| result)
    }
}

/// Whether an error came out as it was given. On the wire an empty code is filled in, and so is an empty text.
fn is_same(given: &ErrorResponse, came: &Failure) -> bool {
    let same =
        |given: &str, came: &str, filled_in: &str| given == came || given.is_empty() && came == filled_in;
    same(given.code.as_str(), came.code.as_str(), "unknown")
        && same(given.text.as_str(), came.text.as_str(), came.code.as_str())
}
