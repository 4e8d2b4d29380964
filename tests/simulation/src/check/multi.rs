//! The history of a multi call, and the invariants that it must keep to.

use bytes::Bytes;
use psrpc_engine::WallTime;
use psrpc_engine::proto::{ErrorResponse, Text};

use super::answers::{Answers, Runs};
use super::fact::Run;
use super::violation::{Checked, Invariant};

/// All that is known of one multi call.
pub(super) struct MultiHistory {
    pub(super) expiry: WallTime,
    pub(super) expected: Option<usize>,
    /// How many servers must answer if it must succeed.
    pub(super) servers: usize,
    pub(super) must_succeed: bool,
    pub(super) runs: Runs,
    pub(super) answers: Answers,
    /// Whose answers came out.
    came: Vec<Text>,
}

impl MultiHistory {
    pub(super) fn new(expiry: WallTime, expected: Option<usize>, servers: usize, must_succeed: bool) -> Self {
        let (runs, answers, came) = (Runs::default(), Answers::default(), Vec::new());
        Self { expiry, expected, servers, must_succeed, runs, answers, came }
    }

    /// A server started the handler.
    pub(super) fn ran(&mut self, run: Run<'_>) -> Checked {
        self.runs.add(run, self.expiry)
    }

    /// A server's answer came out.
    pub(super) fn answer(&mut self, server: &Text, result: &Result<Bytes, ErrorResponse>) -> Checked {
        if self.came.contains(server) {
            return Invariant::I5.violated(format!("a second answer of {server} came out"));
        }
        self.came.push(server.clone());
        match result {
            Ok(payload) => self.answers.check_success(server, payload),
            Err(error) => self.answers.check_error(|who| who == server, &error.code, &error.text),
        }
    }

    /// Whether any server has answered.
    pub(super) fn is_answered(&self) -> bool {
        !self.came.is_empty()
    }

    /// It ended by itself.
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
