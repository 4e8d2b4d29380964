//! The world: what surrounds every node of a run.

use crate::check::{Checked, Fact, Model};
use crate::net::Net;
use crate::stage::Stage;

/// Stage, bus and judge.
pub(crate) struct World {
    pub(crate) stage: Stage,
    pub(crate) net: Net,
    pub(crate) model: Model,
}

impl World {
    pub(crate) fn note(&mut self, fact: Fact<'_>) -> Checked {
        self.model.note(fact)
    }

    /// Whether faults have stopped, and users do nothing any more that keeps a call from succeeding.
    pub(crate) fn is_calm(&self) -> bool {
        self.stage.faults.stopped()
    }
}
