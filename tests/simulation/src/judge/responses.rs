//! Handlers that servers started, and their responses.

use bytes::Bytes;
use psrpc_engine::proto::{ErrorCode, ErrorResponse, Text};
use psrpc_engine::{Failure, WallTime};

use super::fact::HandlerStart;
use super::violation::{Checked, Invariant};

/// The handlers that were started for a request.
#[derive(Default)]
pub(super) struct Runs(Vec<(usize, Text)>);

impl Runs {
    /// Checks the start of a handler and adds it.
    pub(super) fn add(&mut self, run: HandlerStart<'_>, expiry: WallTime) -> Checked {
        let HandlerStart { server, wall, allowance, .. } = run;
        let end = expiry + allowance;
        if wall >= end {
            let late = wall.since(end);
            return Invariant::I3
                .violated(format!("{} started its handler {late:?} past the end", server.id));
        }
        if self.0.iter().any(|(incarnation, _)| *incarnation == server.incarnation) {
            return Invariant::I2.violated(format!("ran twice on {}", server.id));
        }
        self.0.push((server.incarnation, server.id.clone()));
        Ok(())
    }

    /// Returns another server that has started a handler.
    pub(super) fn other_than(&self, server: &Text) -> Option<&Text> {
        self.0.iter().map(|(_, id)| id).find(|id| *id != server)
    }
}

/// The responses of servers to a request.
#[derive(Default, Debug)]
pub(super) struct Responses(Vec<(Text, Result<Bytes, ErrorResponse>)>);

impl Responses {
    pub(super) fn add(&mut self, server: &Text, result: Result<Bytes, ErrorResponse>) {
        self.0.push((server.clone(), result));
    }

    /// Checks that the server sent this success, which the caller received.
    pub(super) fn check_success(&self, server: &Text, received: &Bytes) -> Checked {
        let mut sent = self.0.iter().filter(|(id, _)| id == server).map(|(_, result)| result);
        let same = |result: &&Result<_, _>| matches!(result, Ok(payload) if payload == received);
        match sent.clone().find(same).or_else(|| sent.next()) {
            Some(Ok(payload)) if payload == received => Ok(()),
            Some(Err(error)) => {
                Invariant::I6.violated(format!("{server} sent {error:?}, the caller received a success"))
            }
            sent => {
                Invariant::I5.violated(format!("{server} sent {sent:?}, the caller received {received:?}"))
            }
        }
    }

    /// Checks that an eligible server sent this error, which the caller received.
    pub(super) fn check_error(
        &self,
        is_eligible: impl Fn(&Text) -> bool,
        code: &ErrorCode,
        text: &Text,
    ) -> Checked {
        let mut sent = self.0.iter().filter(|(id, _)| is_eligible(id)).map(|(_, result)| result);
        let same = |result: &&Result<_, ErrorResponse>| matches!(result, Err(error) if is_same(&error.code, &error.text, code, text));
        match sent.clone().find(same).or_else(|| sent.next()) {
            Some(Err(error)) if is_same(&error.code, &error.text, code, text) => Ok(()),
            Some(Ok(payload)) => {
                Invariant::I6.violated(format!("sent {payload:?}, the caller received {code} {text:?}"))
            }
            sent => Invariant::I5.violated(format!("sent {sent:?}, the caller received {code} {text:?}")),
        }
    }

    /// Checks that an eligible server sent the error of this failure.
    pub(super) fn check_failure(&self, is_eligible: impl Fn(&Text) -> bool, received: &Failure) -> Checked {
        self.check_error(is_eligible, &received.code, &received.text)
    }
}

/// Returns `true` if a received error equals the one that was sent. On the wire an empty code and
/// an empty text are filled in.
pub(super) fn is_same(
    code: &ErrorCode,
    text: &Text,
    received_code: &ErrorCode,
    received_text: &Text,
) -> bool {
    let same = |sent: &str, received: &str, filled_in: &str| {
        sent == received || sent.is_empty() && received == filled_in
    };
    same(code.as_str(), received_code.as_str(), "unknown")
        && same(text.as_str(), received_text.as_str(), received_code.as_str())
}
