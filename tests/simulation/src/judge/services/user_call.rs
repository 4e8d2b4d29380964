//! One call of a user of the driver: its history, and the checks of its invariants.

use std::collections::BTreeSet;

use psrpc::{Error, Reason, Time};

use crate::judge::violation::{Checked, Invariant};
use crate::services::hats::Reply;

/// The parameters of a call.
#[derive(Clone, Copy)]
pub struct CallSpec {
    /// The method, and how it is called.
    pub kind: CallKind,
    /// The incarnation of the client.
    pub client: usize,
    /// The node of the client.
    pub node: usize,
    /// When it was made, in the time of the run.
    pub start: Time,
    /// Its deadline, in the time of the run.
    pub due: Time,
    /// Whether it may be retried some time after a failure.
    pub retried: bool,
    /// Whether it is retried only if no handler ran.
    pub only_if_not_run: bool,
    /// The outcome that it must have.
    pub expected: Expected,
}

/// The method of a call, and how it is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallKind {
    /// Routed by queue, and claimed.
    Fit,
    /// Routed by queue; a server announces it and runs it without a grant.
    AnnouncedFit,
    /// Claimed by affinity.
    Pick,
    /// Served by a single server, without a claim.
    OwnFit,
    /// A multi call.
    Census,
}

/// The outcome that a call must have.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Any outcome.
    Anything,
    /// A response, since there are no faults.
    Answer,
    /// The error of a panicked handler.
    Panic,
}

/// The history of one call.
pub(super) struct UserCall {
    pub(super) spec: CallSpec,
    /// Whether its future was dropped.
    pub(super) dropped: bool,
    /// Whether a server has answered it.
    pub(super) answered: bool,
    /// Whether it has resolved or was dropped.
    pub(super) ended: bool,
    /// The server of each run, and the id of its request.
    runs: Vec<(usize, String)>,
    pub(super) handler_ends: Vec<(usize, HandlerEnd)>,
    /// The servers whose responses to a multi call arrived.
    responded: BTreeSet<String>,
}

/// How a handler ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandlerEnd {
    /// With a response.
    Answer,
    /// With an error.
    Failure,
    /// With a panic.
    Panic,
}

impl CallKind {
    /// Returns `true` if a server needs a grant to run it.
    fn is_claimed(self) -> bool {
        matches!(self, CallKind::Fit | CallKind::Pick)
    }
}

impl UserCall {
    pub(super) fn new(spec: CallSpec) -> Self {
        let (runs, handler_ends, responded) = (Vec::new(), Vec::new(), BTreeSet::new());
        Self { spec, dropped: false, answered: false, ended: false, runs, handler_ends, responded }
    }

    /// Checks the start of a handler on a server (I2).
    ///
    /// A bus that `may_lie` may report an error for a frame that it has published. A call that is
    /// retried after that may run twice.
    pub(super) fn handler_started(
        &mut self,
        server: usize,
        is_other: impl Fn(usize) -> bool,
        request: &str,
        may_lie: bool,
    ) -> Checked {
        let CallSpec { kind, only_if_not_run, .. } = self.spec;
        let mut same = self.runs.iter().filter(|(_, other)| other == request);
        let (elsewhere, here) = (same.clone().next(), same.any(|(other, _)| *other == server));
        let before = self.runs.first();
        if here {
            return Invariant::I2.violated(format!("ran twice on server {server}"));
        }
        if let (Some((other, _)), true) = (elsewhere, kind.is_claimed())
            && is_other(*other)
        {
            return Invariant::I2.violated(format!("ran on server {other} and on {server}"));
        }
        if let (Some((other, _)), true) =
            (before, only_if_not_run && kind != CallKind::Census && elsewhere.is_none() && !may_lie)
        {
            return Invariant::I2.violated(format!("was retried on server {server} after it ran on {other}"));
        }
        self.runs.push((server, request.to_owned()));
        Ok(())
    }

    /// Checks a response to a multi call, or an error without a server (I5, I16).
    pub(super) fn response_received(
        &mut self,
        number: usize,
        server_id: Option<&str>,
        result: Result<&Reply, &Error>,
    ) -> Checked {
        match (server_id, result) {
            (Some(server), _) if !self.responded.insert(server.to_owned()) => {
                Invariant::I5.violated(format!("{server} responded twice"))
            }
            (_, Ok(reply)) => {
                self.answered = true;
                check_reply(reply, number, &self.handler_ends)
            }
            (_, Err(error)) if self.spec.expected == Expected::Answer => {
                Invariant::I16.violated(format!("a fresh multi call failed: {error}"))
            }
            (_, Err(_)) => Ok(()),
        }
    }

    /// Returns `true` if an announced request ran on two servers. A bus that delivers a message of
    /// a queue twice can cause that, so it is no violation (the exception of I2).
    pub(super) fn ran_twice(&self) -> bool {
        let is_repeated = |(at, (_, request)): (usize, &(usize, String))| {
            self.runs[..at].iter().any(|(_, earlier)| earlier == request)
        };
        self.spec.kind == CallKind::AnnouncedFit && self.runs.iter().enumerate().any(is_repeated)
    }

    /// Checks how a unary call resolved (I5, I6, I16).
    pub(super) fn check(&self, number: usize, result: &Result<Reply, Error>) -> Checked {
        let ended_with = |ends: &[HandlerEnd]| self.handler_ends.iter().any(|(_, end)| ends.contains(end));
        match (result, self.spec.expected) {
            (Ok(reply), Expected::Panic) => {
                Invariant::I6.violated(format!("received {reply:?}, but the handler panicked"))
            }
            (Ok(reply), _) => check_reply(reply, number, &self.handler_ends),
            (Err(error), Expected::Answer) => {
                Invariant::I16.violated(format!("a fresh call without faults failed: {error}"))
            }
            (Err(error), _) if error.reason() != Some(Reason::Answered) => match self.spec.expected {
                Expected::Panic => {
                    Invariant::I16.violated(format!("the error does not report the panic: {error}"))
                }
                _ => Ok(()),
            },
            (Err(_), _) if ended_with(&[HandlerEnd::Failure, HandlerEnd::Panic]) => Ok(()),
            (Err(error), _) if ended_with(&[HandlerEnd::Answer]) => {
                Invariant::I6.violated(format!("the handler succeeded, but the caller received {error}"))
            }
            (Err(_), _) => Ok(()),
        }
    }
}

fn check_reply(reply: &Reply, call: usize, handler_ends: &[(usize, HandlerEnd)]) -> Checked {
    let answer = (reply.server as usize, HandlerEnd::Answer);
    if reply.number != call as u64 {
        return Invariant::I5.violated(format!("received a reply to call {}", reply.number));
    }
    if !handler_ends.contains(&answer) {
        return Invariant::I5.violated(format!("received {reply:?}, which the server did not send"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use psrpc::ErrorCode;

    fn call(kind: CallKind, only_if_not_run: bool) -> UserCall {
        let (start, due, expected) = (Time::ZERO, Time::from_nanos(9), Expected::Anything);
        UserCall::new(CallSpec {
            kind,
            client: 0,
            node: 0,
            start,
            due,
            retried: false,
            only_if_not_run,
            expected,
        })
    }

    fn violates(checked: Checked) -> Option<Invariant> {
        checked.err().map(|violation| violation.invariant)
    }

    fn reply(server: u64) -> Result<Reply, Error> {
        Ok(Reply { number: 7, server })
    }

    #[test]
    fn a_request_runs_once_on_a_server_and_a_claimed_one_on_no_other() {
        let other = |_| true;
        let mut fit = call(CallKind::Fit, false);
        assert_eq!(fit.handler_started(1, other, "REQ_1", false), Ok(()));
        assert_eq!(violates(fit.handler_started(1, other, "REQ_1", false)), Some(Invariant::I2));
        assert_eq!(violates(fit.handler_started(2, other, "REQ_1", false)), Some(Invariant::I2));
        assert_eq!(
            fit.handler_started(2, |_| false, "REQ_1", false),
            Ok(()),
            "it has the same id as the first"
        );
        assert_eq!(fit.handler_started(2, other, "REQ_2", false), Ok(()));
        let mut announced = call(CallKind::AnnouncedFit, false);
        assert_eq!(announced.handler_started(1, other, "REQ_1", false), Ok(()));
        assert!(!announced.ran_twice());
        assert_eq!(announced.handler_started(2, other, "REQ_1", false), Ok(()));
        assert!(announced.ran_twice());
    }

    #[test]
    fn a_call_that_ran_is_not_retried_unless_the_bus_reported_a_false_error() {
        let mut fit = call(CallKind::Fit, true);
        assert_eq!(fit.handler_started(1, |_| true, "REQ_1", false), Ok(()));
        assert_eq!(fit.handler_started(1, |_| true, "REQ_2", true), Ok(()));
        assert_eq!(violates(fit.handler_started(1, |_| true, "REQ_3", false)), Some(Invariant::I2));
    }

    #[test]
    fn a_reply_must_come_from_a_handler_and_an_error_need_not() {
        let mut fit = call(CallKind::Fit, false);
        assert_eq!(violates(fit.check(7, &reply(1))), Some(Invariant::I5), "no handler has ended");
        fit.handler_ends.push((1, HandlerEnd::Answer));
        assert_eq!(fit.check(7, &reply(1)), Ok(()));
        assert_eq!(violates(fit.check(8, &reply(1))), Some(Invariant::I5), "the reply is of another call");
        assert_eq!(
            violates(fit.check(7, &reply(2))),
            Some(Invariant::I5),
            "only the handler of another server has ended"
        );
        assert_eq!(fit.check(7, &Err(Error::new(ErrorCode::Unavailable, "no answer"))), Ok(()));
    }

    #[test]
    fn a_fresh_call_must_succeed_and_a_panic_must_be_reported() {
        let unavailable = Err(Error::new(ErrorCode::Unavailable, "no answer"));
        for expected in [Expected::Answer, Expected::Panic] {
            let mut fresh = call(CallKind::Fit, false);
            fresh.spec.expected = expected;
            assert_eq!(violates(fresh.check(7, &unavailable)), Some(Invariant::I16));
        }
        let mut fresh = call(CallKind::Fit, false);
        fresh.spec.expected = Expected::Panic;
        assert_eq!(violates(fresh.check(7, &reply(1))), Some(Invariant::I6));
    }

    #[test]
    fn a_server_responds_once_to_a_multi_call() {
        let mut census = call(CallKind::Census, false);
        census.handler_ends.push((1, HandlerEnd::Answer));
        let reply = reply(1).unwrap();
        assert_eq!(census.response_received(7, Some("SRV_1"), Ok(&reply)), Ok(()));
        assert_eq!(violates(census.response_received(7, Some("SRV_1"), Ok(&reply))), Some(Invariant::I5));
    }
}
