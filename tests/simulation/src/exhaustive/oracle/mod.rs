//! The oracle: checks the one call of a scenario under any schedule.

mod claim_oracle;
mod due;
mod multi_oracle;
mod stream_oracle;
mod unary_oracle;
mod update_oracle;

use psrpc_engine::Time;

use self::due::{CALL, Due};
use self::multi_oracle::MultiOracle;
use self::stream_oracle::StreamOracle;
use self::unary_oracle::UnaryOracle;
use self::update_oracle::UpdateOracle;
use super::scenario::{CLIENT, Kind, PUBLISHER, Scenario};
use super::step::StepFact;
use crate::judge::violation::Checked;

/// The state of the oracle.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Oracle {
    due: Due,
    kind: KindOracle,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum KindOracle {
    Unary(UnaryOracle),
    Multi(MultiOracle),
    Stream(StreamOracle),
    Update(UpdateOracle),
}

impl Oracle {
    pub(super) fn new(scenario: &Scenario) -> Self {
        let kind = match scenario.kind {
            Kind::Queue | Kind::SkipClaim | Kind::Affinity | Kind::SingleServer => {
                KindOracle::Unary(UnaryOracle::new(scenario))
            }
            Kind::Multi => KindOracle::Multi(MultiOracle::default()),
            Kind::Stream | Kind::Upload | Kind::Download => {
                KindOracle::Stream(StreamOracle::new(scenario.kind))
            }
            Kind::Update => KindOracle::Update(UpdateOracle::default()),
        };
        Self { due: Due::NotStarted, kind }
    }

    /// Checks a fact about a node.
    pub(super) fn note(&mut self, node: usize, now: Time, fact: &StepFact) -> Checked {
        let due = &mut self.due;
        match (&mut self.kind, node.checked_sub(CLIENT + 1)) {
            (KindOracle::Unary(unary), None) => unary.client(due, now, fact),
            (KindOracle::Unary(unary), Some(server)) => unary.server(server, now, fact),
            (KindOracle::Multi(multi), None) => multi.client(due, now, fact),
            (KindOracle::Multi(multi), Some(server)) => multi.server(server, now, fact),
            (KindOracle::Stream(stream), None) => stream.client(due, now, fact),
            (KindOracle::Stream(stream), Some(server)) => stream.server(server, now, fact),
            (KindOracle::Update(update), None) => update.client(fact),
            (KindOracle::Update(update), Some(_)) => update.server(due, now, fact),
        }
    }

    /// Checks the conditions that must hold after a node has handled an input and all its outputs
    /// were taken.
    pub(super) fn step_ended(&self) -> Checked {
        if let KindOracle::Update(update) = &self.kind { update.step_ended() } else { Ok(()) }
    }

    /// Checks that nothing is overdue.
    pub(super) fn time_advanced(&self, now: Time) -> Checked {
        self.due.time_advanced(CALL, now)?;
        if let KindOracle::Stream(stream) = &self.kind { stream.time_advanced(now) } else { Ok(()) }
    }

    /// Notes that a server has crashed.
    pub(super) fn crashed(&mut self, node: usize) {
        match &mut self.kind {
            KindOracle::Stream(stream) => stream.crashed(node - 1),
            // The crashed publisher no longer waits for its update.
            KindOracle::Update(_) if node == PUBLISHER + 1 => self.due = Due::Over,
            _ => {}
        }
    }

    /// Checks the conditions that must hold at the end of a schedule. `calm` is `true` if there was
    /// no fault and time never passed while inputs were pending.
    pub(super) fn end(&self, calm: bool) -> Checked {
        self.due.must_be_over(CALL)?;
        match &self.kind {
            KindOracle::Unary(unary) => unary.end(calm),
            KindOracle::Multi(multi) => multi.end(calm),
            KindOracle::Stream(stream) => stream.end(calm),
            KindOracle::Update(update) => update.end(calm),
        }
    }
}
