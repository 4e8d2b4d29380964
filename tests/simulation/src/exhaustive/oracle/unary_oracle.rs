//! The oracle of a unary call.

use psrpc_engine::proto::{ErrorResponse, Frame};
use psrpc_engine::{ClientEvent, Failure, Reason, Reply, ServerEvent, Time};

use super::claim_oracle::ClaimOracle;
use super::due::{CALL, Due, check_answer, check_expiry};
use crate::exhaustive::scenario::{Kind, SERVERS, Scenario, server_of};
use crate::exhaustive::step::{NodeAct, StepFact};
use crate::judge::violation::{Checked, Invariant, Violation};

/// The state of a unary call.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct UnaryOracle {
    is_claimed: bool,
    /// Whether the bus passes the request to one server, whose response counts even before a grant
    /// or an announcement.
    is_queue: bool,
    /// Whether servers skip the claim.
    skips_claim: bool,
    claim: ClaimOracle,
    reached: [bool; SERVERS],
    ran: [bool; SERVERS],
    /// Whether it was canceled before it ended.
    canceled: bool,
    end: Option<End>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    Answered,
    Canceled,
    Failed,
}

impl UnaryOracle {
    pub(super) fn new(scenario: &Scenario) -> Self {
        Self {
            is_claimed: scenario.kind != Kind::SingleServer,
            is_queue: matches!(scenario.kind, Kind::Queue | Kind::SkipClaim),
            skips_claim: scenario.kind == Kind::SkipClaim,
            claim: ClaimOracle::default(),
            reached: [false; SERVERS],
            ran: [false; SERVERS],
            canceled: false,
            end: None,
        }
    }

    pub(super) fn client(&mut self, due: &mut Due, now: Time, fact: &StepFact) -> Checked {
        let is_over = self.end.is_some();
        match fact {
            StepFact::Acted(NodeAct::Call) => due.begin(now),
            StepFact::Acted(NodeAct::Cancel) if !is_over => {
                self.canceled = true;
                self.claim.withdrawn = self.claim.selected.is_none();
            }
            StepFact::Received(Frame::ClaimRequest(claim)) => self.claim.bid(claim, is_over),
            StepFact::Published(_, Frame::ClaimResponse(grant)) => self.claim.grant(grant, is_over)?,
            StepFact::Client(ClientEvent::Resolved { outcome, .. }) => {
                due.end(CALL, now)?;
                self.end = Some(self.ended(outcome)?);
            }
            _ => {}
        }
        Ok(())
    }

    pub(super) fn server(&mut self, server: usize, now: Time, fact: &StepFact) -> Checked {
        match fact {
            StepFact::Received(Frame::Request(_)) => self.reached[server] = self.skips_claim,
            StepFact::Server(ServerEvent::Run { .. }) => {
                check_expiry(server, now)?;
                if self.ran[server] {
                    return Invariant::I2.violated("it runs twice on one server");
                }
                self.ran[server] = true;
                if self.is_claimed && !self.skips_claim {
                    self.claim.may_run(server)?;
                }
                // An announced request may run on each server that received it.
                let many = self.skips_claim && self.reached == [true; SERVERS];
                if self.is_claimed && self.ran == [true; SERVERS] && !many {
                    return Invariant::I2.violated("it runs on both servers");
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn ended(&self, outcome: &Result<Reply, Box<Failure>>) -> Result<End, Violation> {
        let selected = self.claim.selected;
        match outcome {
            Ok(Reply { server_id, payload }) => {
                let server = server_of(server_id);
                let is_eligible = server == selected || selected.is_none() && self.is_queue;
                if self.is_claimed && !is_eligible {
                    let what = format!("{server_id} responded, but {selected:?} was selected");
                    Invariant::I5.violated(what)?;
                }
                check_answer(server, &self.ran, Ok(payload))?;
                Ok(End::Answered)
            }
            Err(failure) if failure.reason == Reason::Answered => {
                let error = ErrorResponse::new(failure.code.clone(), failure.text.clone());
                let is_eligible =
                    |server: &usize| self.ran[*server] && selected.is_none_or(|it| it == *server);
                let mut servers = (0..SERVERS).filter(is_eligible);
                // Before a server is selected, the error may come from any server that ran the
                // call.
                let of = servers
                    .clone()
                    .find(|server| check_answer(Some(*server), &self.ran, Err(&error)).is_ok());
                check_answer(of.or_else(|| servers.next()), &self.ran, Err(&error))?;
                Ok(End::Answered)
            }
            Err(failure) if failure.reason == Reason::Canceled => Ok(End::Canceled),
            Err(_) => Ok(End::Failed),
        }
    }

    pub(super) fn end(&self, calm: bool) -> Checked {
        let end = self.end;
        if self.canceled != (end == Some(End::Canceled)) {
            let canceled = if self.canceled { "canceled" } else { "not canceled" };
            return Invariant::I4.violated(format!("it was {canceled}, and its caller sees {end:?}"));
        }
        if calm && !self.canceled && end != Some(End::Answered) {
            return Invariant::I16.violated("there was no fault, but it got no response");
        }
        Ok(())
    }
}
