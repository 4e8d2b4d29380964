//! Handlers that servers started, and their responses.

use bytes::Bytes;
use psrpc_engine::proto::{ErrorCode, ErrorResponse, Text};
use psrpc_engine::{Failure, WallTime};

use super::fact::Run;
use super::violation::{Checked, Invariant};

/// The handlers that were started for a request.
#[derive(Default)]
pub(super) struct Runs(Vec<(usize, Text)>);

impl Runs {
    /// Checks the start of a handler and adds it.
    pub(super) fn add(&mut self, run: Run<'_>, expiry: WallTime) -> Checked {
        let Run { server, wall, allowance, .. } = run;
        let end = expiry + allowance;
        if wall >= end {
            let late = wall.since(end);
            return Invariant::I3
                .violated(format!("{} started its handler {late:?} past the end", server.id));
        }
        if self.0.iter().any(|(life, _)| *life == server.life) {
            return Invariant::I2.violated(format!("ran twice on {}", server.id));
        }
        self.0.push((server.life, server.id.clone()));
        Ok(())
    }

    /// Returns another server that has started a handler.
    pub(super) fn other_than(&self, server: &Text) -> Option<&Text> {
        self.0.iter().map(|(_, id)| id).find(|id| *id != server)
    }
}

/// The responses of servers to a request.
#[derive(Default, Debug)]
pub(super) struct Answers(Vec<(Text, Result<Bytes, ErrorResponse>)>);

impl Answers {
    pub(super) fn add(&mut self, server: &Text, result: Result<Bytes, ErrorResponse>) {
        self.0.push((server.clone(), result));
    }

    /// Checks that the server gave this success, which its caller received.
    pub(super) fn check_success(&self, server: &Text, came: &Bytes) -> Checked {
        let mut given = self.0.iter().filter(|(who, _)| who == server).map(|(_, result)| result);
        let same = |result: &&Result<_, _>| matches!(result, Ok(payload) if payload == came);
        match given.clone().find(same).or_else(|| given.next()) {
            Some(Ok(payload)) if payload == came => Ok(()),
            Some(Err(error)) => {
                Invariant::I6.violated(format!("{server} answered {error:?}, a success came out"))
            }
            given => Invariant::I5.violated(format!("{server} answered {given:?}, {came:?} came out")),
        }
    }

    /// Checks that an eligible server gave this error, which its caller received.
    pub(super) fn check_error(
        &self,
        may_answer: impl Fn(&Text) -> bool,
        code: &ErrorCode,
        text: &Text,
    ) -> Checked {
        let mut given = self.0.iter().filter(|(who, _)| may_answer(who)).map(|(_, result)| result);
        let same = |result: &&Result<_, ErrorResponse>| matches!(result, Err(error) if is_same(&error.code, &error.text, code, text));
        match given.clone().find(same).or_else(|| given.next()) {
            Some(Err(error)) if is_same(&error.code, &error.text, code, text) => Ok(()),
            Some(Ok(payload)) => {
                Invariant::I6.violated(format!("answered {payload:?}, {code} {text:?} came out"))
            }
            given => Invariant::I5.violated(format!("answered {given:?}, {code} {text:?} came out")),
        }
    }

    /// Checks that an eligible server gave the error of this failure.
    pub(super) fn check_failure(&self, may_answer: impl Fn(&Text) -> bool, came: &Failure) -> Checked {
        self.check_error(may_answer, &came.code, &came.text)
    }
}

/// Returns `true` if a received error equals the one that was sent. On the wire an empty code and
/// an empty text are filled in.
pub(super) fn is_same(code: &ErrorCode, text: &Text, came_code: &ErrorCode, came_text: &Text) -> bool {
    let same =
        |given: &str, came: &str, filled_in: &str| given == came || given.is_empty() && came == filled_in;
    same(code.as_str(), came_code.as_str(), "unknown")
        && same(text.as_str(), came_text.as_str(), came_code.as_str())
}
