//! The history of a multi call, and its invariants.

use bytes::Bytes;
use psrpc_engine::proto::{ErrorResponse, Text};
use psrpc_engine::{Time, WallTime};

use super::answers::{Answers, Runs};
use super::fact::Run;
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
    pub(super) answers: Answers,
    /// The servers whose responses the client received before its deadline.
    heard: Vec<Text>,
    /// The servers whose responses the client reported.
    came: Vec<Text>,
}

impl MultiHistory {
    pub(super) fn new(
        deadline: Time,
        expiry: WallTime,
        expected: Option<usize>,
        servers: usize,
        must_succeed: bool,
    ) -> Self {
        let (runs, answers) = (Runs::default(), Answers::default());
        let (heard, came) = (Vec::new(), Vec::new());
        Self { deadline, expiry, expected, servers, must_succeed, runs, answers, heard, came }
    }

    /// Notes that the client received a response.
    pub(super) fn heard(&mut self, server: &Text, now: Time) {
        if now < self.deadline {
            self.heard.push(server.clone());
        }
    }

    /// Checks the start of a handler.
    pub(super) fn ran(&mut self, run: Run<'_>) -> Checked {
        self.runs.add(run, self.expiry)
    }

    /// Checks a response that the client reported.
    pub(super) fn answer(&mut self, server: &Text, result: &Result<Bytes, ErrorResponse>) -> Checked {
        if self.came.contains(server) {
            return Invariant::I5.violated(format!("a second answer of {server} came out"));
        }
        if !self.heard.contains(server) {
            return Invariant::I1.violated(format!("the answer of {server} came out, and not in time"));
        }
        self.came.push(server.clone());
        match result {
            Ok(payload) => self.answers.check_success(server, payload),
            Err(error) => self.answers.check_error(|who| who == server, &error.code, &error.text),
        }
    }

    /// Returns `true` if the client has reported a response.
    pub(super) fn is_answered(&self) -> bool {
        !self.came.is_empty()
    }

    /// Checks how it ended.
    pub(super) fn ended(&self, early: bool) -> Checked {
        let came = self.came.len();
        if early && self.expected.is_none_or(|expected| came < expected) {
            return Invariant::I1.violated(format!("it ended early, with {came} answers"));
        }
        if self.must_succeed && came < self.servers {
            return Invariant::I16
                .violated(format!("{came} of {} servers answered a fresh call", self.servers));
        }
        Ok(())
    }
}
