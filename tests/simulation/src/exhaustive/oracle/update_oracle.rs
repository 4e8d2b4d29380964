//! The oracle of a subscription and an update.

use psrpc_engine::proto::Frame;
use psrpc_engine::{ClientEvent, ServerEvent, Time};

use super::due::Due;
use crate::exhaustive::scripted_users::UPDATE;
use crate::exhaustive::step::{NodeAct, StepFact};
use crate::judge::violation::{Checked, Invariant};

/// The state of a subscription of the client, and an update of a server.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct UpdateOracle {
    phase: Phase,
    /// Whether the update was published while the subscription was live.
    is_expected: bool,
    /// How often the client's engine received the update.
    received: u8,
    /// How often the engine reported the update to its user.
    reported: u8,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    #[default]
    Subscribing,
    Live,
    Leaving,
    Ended,
}

impl UpdateOracle {
    pub(super) fn client(&mut self, fact: &StepFact) -> Checked {
        match fact {
            StepFact::Client(ClientEvent::Subscribed { .. }) => {
                if self.phase != Phase::Subscribing {
                    return Invariant::I13.violated("the subscription was confirmed twice");
                }
                self.phase = Phase::Live;
            }
            StepFact::Acted(NodeAct::Unsubscribe) => self.phase = Phase::Leaving,
            StepFact::Client(ClientEvent::Unsubscribed { .. }) => {
                if self.phase != Phase::Leaving {
                    return Invariant::I13.violated(format!("the subscription ends while {:?}", self.phase));
                }
                self.phase = Phase::Ended;
            }
            StepFact::Received(Frame::Other(_)) => self.received += 1,
            StepFact::Client(ClientEvent::Update { payload, .. }) => {
                self.reported += 1;
                if payload != UPDATE {
                    return Invariant::I13.violated(format!("published {UPDATE:?}, received {payload:?}"));
                }
            }
            _ => {}
        }
        Ok(())
    }

    pub(super) fn server(&mut self, due: &mut Due, now: Time, fact: &StepFact) -> Checked {
        match fact {
            StepFact::Acted(NodeAct::Publish) => {
                due.begin(now);
                self.is_expected = self.phase == Phase::Live;
            }
            StepFact::Server(ServerEvent::Updated { outcome, .. }) => {
                due.end("the update", now)?;
                if let Err(failure) = outcome {
                    return Invariant::I16
                        .violated(format!("it failed although the bus rejected nothing: {failure}"));
                }
            }
            _ => {}
        }
        Ok(())
    }

    pub(super) fn step_ended(&self) -> Checked {
        if self.received != self.reported {
            let Self { received, reported, .. } = self;
            return Invariant::I13
                .violated(format!("an update arrived {received} times and was reported {reported} times"));
        }
        Ok(())
    }

    pub(super) fn end(&self, calm: bool) -> Checked {
        if self.phase != Phase::Ended {
            return Invariant::I13.violated(format!("the subscription stays {:?}", self.phase));
        }
        if calm && (self.reported > 1 || self.is_expected && self.reported == 0) {
            return Invariant::I13
                .violated(format!("there was no fault, but the update arrived {} times", self.reported));
        }
        Ok(())
    }
}
