//! The oracle of a multi call.

use psrpc_engine::{ClientEvent, Reason, ServerEvent, Time};

use super::due::{CALL, Due, check_answer, check_expiry};
use crate::exhaustive::scenario::{SERVERS, name, server_of};
use crate::exhaustive::step::{NodeAct, StepFact};
use crate::judge::violation::{Checked, Invariant};

/// The state of a multi call.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct MultiOracle {
    ran: [bool; SERVERS],
    answered: [bool; SERVERS],
}

impl MultiOracle {
    pub(super) fn client(&mut self, due: &mut Due, now: Time, fact: &StepFact) -> Checked {
        match fact {
            StepFact::Acted(NodeAct::Call) => due.begin(now),
            StepFact::Client(ClientEvent::Response { server_id, result, .. }) => {
                if *due == Due::Over {
                    return Invariant::I1.violated("a response arrives after the end");
                }
                let server = server_of(server_id);
                check_answer(server, &self.ran, result.as_ref())?;
                if server.is_some_and(|server| std::mem::replace(&mut self.answered[server], true)) {
                    return Invariant::I5.violated(format!("two responses of {server_id}"));
                }
            }
            StepFact::Client(ClientEvent::MultiEnded { outcome, .. }) => {
                due.end(CALL, now)?;
                // A call without any response ends with a failure.
                let nobody = self.answered == [false; SERVERS];
                if let Err(failure) = outcome
                    && !(nobody && failure.reason == Reason::TimedOut)
                {
                    return Invariant::I16
                        .violated(format!("it failed although the bus rejected nothing: {failure}"));
                }
            }
            _ => {}
        }
        Ok(())
    }

    pub(super) fn server(&mut self, server: usize, now: Time, fact: &StepFact) -> Checked {
        if let StepFact::Server(ServerEvent::Run { .. }) = fact {
            check_expiry(server, now)?;
            if std::mem::replace(&mut self.ran[server], true) {
                return Invariant::I2.violated(format!("it runs twice on {}", name(server + 1)));
            }
        }
        Ok(())
    }

    pub(super) fn end(&self, calm: bool) -> Checked {
        if calm && self.answered != [true; SERVERS] {
            return Invariant::I16.violated("there was no fault, but a response is missing");
        }
        Ok(())
    }
}
