//! One call of a user of the driver: its history, and the checks of its invariants.

use std::collections::BTreeSet;

use psrpc::{Error, Reason, Time};

use super::hats::Reply;
use crate::judge::violation::{Checked, Invariant};

/// The parameters of a call.
#[derive(Clone, Copy)]
pub(super) struct Made {
    pub(super) kind: Kind,
    /// The incarnation of the client.
    pub(super) client: usize,
    /// The node of the client.
    pub(super) node: usize,
    /// When it was made, and its deadline, in virtual time.
    pub(super) began: Time,
    pub(super) due: Time,
    /// Whether it may be retried some time after a failure.
    pub(super) retried: bool,
    /// Whether it is retried only if no handler ran.
    pub(super) once: bool,
    pub(super) expected: Expected,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Fit,
    Pick,
    OwnFit,
    Census,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expected {
    /// Any outcome.
    Anything,
    /// A response, since there are no faults.
    Answer,
    /// The error of a panicked handler.
    Panic,
}

/// The history of one call.
pub(super) struct UserCall {
    pub(super) made: Made,
    pub(super) dropped: bool,
    /// The servers that ran it, and for which request.
    runs: Vec<(usize, String)>,
    pub(super) said: Vec<(usize, Said)>,
    /// The servers whose responses to a multi call arrived.
    heard: BTreeSet<String>,
}

/// How a handler ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said {
    Answer,
    Failure,
    Panic,
}

impl Kind {
    /// Returns `true` if a server needs a grant to run it.
    fn is_claimed(self) -> bool {
        matches!(self, Kind::Fit | Kind::Pick)
    }
}

impl UserCall {
    pub(super) fn new(made: Made) -> Self {
        let (runs, said, heard) = (Vec::new(), Vec::new(), BTreeSet::new());
        Self { made, dropped: false, runs, said, heard }
    }

    /// Checks the start of a handler on a server (I2).
    ///
    /// A bus that `may_lie` may report an error for a frame that it has published. A call that is
    /// retried after that may run twice.
    pub(super) fn started(
        &mut self,
        server: usize,
        is_other: impl Fn(usize) -> bool,
        request: &str,
        may_lie: bool,
    ) -> Checked {
        let Made { kind, once, .. } = self.made;
        let mut same = self.runs.iter().filter(|(_, known)| known == request);
        let (elsewhere, here) = (same.clone().next(), same.any(|(known, _)| *known == server));
        let before = self.runs.first();
        if here {
            return Invariant::I2.violated(format!("ran twice on server {server}"));
        }
        if let (Some((other, _)), true) = (elsewhere, kind.is_claimed())
            && is_other(*other)
        {
            return Invariant::I2.violated(format!("ran on server {other}, and on {server}"));
        }
        if let (Some((other, _)), true) =
            (before, once && kind != Kind::Census && elsewhere.is_none() && !may_lie)
        {
            return Invariant::I2
                .violated(format!("was made again, on server {server}, and had run on {other}"));
        }
        self.runs.push((server, request.to_owned()));
        Ok(())
    }

    /// Checks a response to a multi call, or an error without a server (I5, I16).
    pub(super) fn heard(
        &mut self,
        number: usize,
        server_id: Option<&str>,
        result: Result<&Reply, &Error>,
    ) -> Checked {
        match (server_id, result) {
            (Some(server), _) if !self.heard.insert(server.to_owned()) => {
                Invariant::I5.violated(format!("{server} answered twice"))
            }
            (_, Ok(reply)) => is_said(reply, number, &self.said),
            (_, Err(error)) if self.made.expected == Expected::Answer => {
                Invariant::I16.violated(format!("a fresh multi call failed: {error}"))
            }
            (_, Err(_)) => Ok(()),
        }
    }

    /// Checks how a unary call resolved (I5, I6, I16).
    pub(super) fn check(&self, number: usize, result: &Result<Reply, Error>) -> Checked {
        let said = |what: &[Said]| self.said.iter().any(|(_, said)| what.contains(said));
        match (result, self.made.expected) {
            (Ok(reply), Expected::Panic) => {
                Invariant::I6.violated(format!("{reply:?} came out, and the handler panicked"))
            }
            (Ok(reply), _) => is_said(reply, number, &self.said),
            (Err(error), Expected::Answer) => {
                Invariant::I16.violated(format!("a fresh call without faults failed: {error}"))
            }
            (Err(error), _) if error.reason() != Some(Reason::Answered) => match self.made.expected {
                Expected::Panic => {
                    Invariant::I16.violated(format!("nobody says that the handler panicked: {error}"))
                }
                _ => Ok(()),
            },
            (Err(_), _) if said(&[Said::Failure, Said::Panic]) => Ok(()),
            (Err(error), _) if said(&[Said::Answer]) => {
                Invariant::I6.violated(format!("the handler answered, and out came {error}"))
            }
            (Err(_), _) => Ok(()),
        }
    }
}

fn is_said(reply: &Reply, call: usize, said: &[(usize, Said)]) -> Checked {
    let answer = (reply.server as usize, Said::Answer);
    if reply.number != call as u64 {
        return Invariant::I5.violated(format!("an answer to call {} came out", reply.number));
    }
    if !said.contains(&answer) {
        return Invariant::I5.violated(format!("{reply:?} came out, which that server did not say"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use psrpc::ErrorCode;

    fn call(kind: Kind, once: bool) -> UserCall {
        let (began, due, expected) = (Time::ZERO, Time::from_nanos(9), Expected::Anything);
        UserCall::new(Made { kind, client: 0, node: 0, began, due, retried: false, once, expected })
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
        let mut fit = call(Kind::Fit, false);
        assert_eq!(fit.started(1, other, "REQ_1", false), Ok(()));
        assert_eq!(violates(fit.started(1, other, "REQ_1", false)), Some(Invariant::I2));
        assert_eq!(violates(fit.started(2, other, "REQ_1", false)), Some(Invariant::I2));
        assert_eq!(fit.started(2, |_| false, "REQ_1", false), Ok(()), "that has the id of the first");
        assert_eq!(fit.started(2, other, "REQ_2", false), Ok(()));
        let mut own = call(Kind::OwnFit, false);
        assert_eq!(own.started(1, other, "REQ_1", false), Ok(()));
        assert_eq!(own.started(2, other, "REQ_1", false), Ok(()));
    }

    #[test]
    fn what_ran_is_not_made_again_unless_the_bus_lied() {
        let mut fit = call(Kind::Fit, true);
        assert_eq!(fit.started(1, |_| true, "REQ_1", false), Ok(()));
        assert_eq!(fit.started(1, |_| true, "REQ_2", true), Ok(()));
        assert_eq!(violates(fit.started(1, |_| true, "REQ_3", false)), Some(Invariant::I2));
    }

    #[test]
    fn an_answer_is_one_that_was_given_and_an_error_is_none() {
        let mut fit = call(Kind::Fit, false);
        assert_eq!(violates(fit.check(7, &reply(1))), Some(Invariant::I5), "nobody said so");
        fit.said.push((1, Said::Answer));
        assert_eq!(fit.check(7, &reply(1)), Ok(()));
        assert_eq!(violates(fit.check(8, &reply(1))), Some(Invariant::I5), "it is of another call");
        assert_eq!(violates(fit.check(7, &reply(2))), Some(Invariant::I5), "another said so");
        assert_eq!(fit.check(7, &Err(Error::new(ErrorCode::Unavailable, "no answer"))), Ok(()));
    }

    #[test]
    fn a_fresh_call_succeeds_and_a_panic_is_told() {
        let unavailable = Err(Error::new(ErrorCode::Unavailable, "no answer"));
        for expected in [Expected::Answer, Expected::Panic] {
            let mut fresh = call(Kind::Fit, false);
            fresh.made.expected = expected;
            assert_eq!(violates(fresh.check(7, &unavailable)), Some(Invariant::I16));
        }
        let mut fresh = call(Kind::Fit, false);
        fresh.made.expected = Expected::Panic;
        assert_eq!(violates(fresh.check(7, &reply(1))), Some(Invariant::I6));
    }

    #[test]
    fn a_server_answers_a_multi_call_once() {
        let mut census = call(Kind::Census, false);
        census.said.push((1, Said::Answer));
        let reply = reply(1).unwrap();
        assert_eq!(census.heard(7, Some("SRV_1"), Ok(&reply)), Ok(()));
        assert_eq!(violates(census.heard(7, Some("SRV_1"), Ok(&reply))), Some(Invariant::I5));
    }
}
