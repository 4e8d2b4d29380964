//! The history of a multi call, and its invariants.

use bytes::Bytes;
use psrpc_engine::proto::{ErrorResponse, Text};
use psrpc_engine::{Time, WallTime};

use super::fact::HandlerStart;
use super::responses::{Responses, Runs};
use super::violation::{Checked, Invariant};

/// The history of one multi call.
pub(super) struct MultiHistory {
    deadline: Time,
    pub(super) expiry: WallTime,
    pub(super) expected: Option<usize>,
    /// The number of servers that must respond if it must succeed.
    pub(super) servers: usize,
    pub(super) must_succeed: bool,
    pub(super) runs: Runs,
    pub(super) responses: Responses,
    /// The servers whose responses the client received before its deadline.
    responded: Vec<Text>,
    /// The servers whose responses the client reported.
    reported: Vec<Text>,
}

impl MultiHistory {
    pub(super) fn new(
        deadline: Time,
        expiry: WallTime,
        expected: Option<usize>,
        servers: usize,
        must_succeed: bool,
    ) -> Self {
        let (runs, responses) = (Runs::default(), Responses::default());
        let (responded, reported) = (Vec::new(), Vec::new());
        Self { deadline, expiry, expected, servers, must_succeed, runs, responses, responded, reported }
    }

    /// Notes that the client received a response.
    pub(super) fn received(&mut self, server: &Text, now: Time) {
        if now < self.deadline {
            self.responded.push(server.clone());
        }
    }

    /// Checks the start of a handler.
    pub(super) fn ran(&mut self, run: HandlerStart<'_>) -> Checked {
        self.runs.add(run, self.expiry)
    }

    /// Checks a response that the client reported.
    pub(super) fn response(&mut self, server: &Text, result: &Result<Bytes, ErrorResponse>) -> Checked {
        if self.reported.contains(server) {
            return Invariant::I5.violated(format!("a second response of {server} was reported"));
        }
        if !self.responded.contains(server) {
            return Invariant::I1.violated(format!("the late response of {server} was reported"));
        }
        self.reported.push(server.clone());
        match result {
            Ok(payload) => self.responses.check_success(server, payload),
            Err(error) => self.responses.check_error(|id| id == server, &error.code, &error.text),
        }
    }

    /// Returns `true` if the client has reported a response.
    pub(super) fn has_response(&self) -> bool {
        !self.reported.is_empty()
    }

    /// Checks how it ended.
    pub(super) fn ended(&self, early: bool) -> Checked {
        let reported = self.reported.len();
        if early && self.expected.is_none_or(|expected| reported < expected) {
            return Invariant::I1.violated(format!("it ended early, with {reported} responses"));
        }
        if self.must_succeed && reported < self.servers {
            return Invariant::I16
                .violated(format!("{reported} of {} servers responded to a fresh call", self.servers));
        }
        Ok(())
    }
}
