//! The engine world: everything that the nodes of a run share.

use std::collections::BTreeMap;
use std::rc::Rc;

use psrpc_engine::{Failure, SubscriptionHandle};

use super::engine_happening::EngineHappening;
use super::methods::Methods;
use crate::judge::fact::Fact;
use crate::judge::model::Model;
use crate::judge::violation::{Checked, Invariant};
use crate::net::Net;
use crate::node_id::NodeId;
use crate::scene::Scene;

/// The scene, the bus and the judge of a run.
pub(crate) struct EngineWorld {
    pub(crate) scene: Scene<EngineHappening>,
    pub(crate) net: Net<(NodeId, SubscriptionHandle)>,
    pub(crate) model: Model,
    pub(crate) methods: Rc<Methods>,
    /// How often calls ended in each way.
    pub(crate) outcomes: BTreeMap<&'static str, u64>,
}

impl EngineWorld {
    pub(crate) fn note(&mut self, fact: Fact<'_>) -> Checked {
        self.model.note(fact)
    }

    /// Whether faults have stopped, and users do nothing any more that keeps a call from
    /// succeeding.
    pub(crate) fn is_calm(&self) -> bool {
        self.scene.faults.stopped()
    }

    /// Checks that a node gets all that it has subscribed to, as it believes (I13).
    pub(crate) fn all_live(&self, node: NodeId) -> Checked {
        match self.net.not_live_yet(node.peer()) {
            Some(channel) => Invariant::I13.violated(format!("{node}: {channel} is not live yet")),
            None => Ok(()),
        }
    }

    pub(crate) fn count_outcome(&mut self, outcome: Result<(), &Failure>) {
        let name = outcome.map_or_else(|failure| failure.reason.as_str(), |()| "answered");
        self.count(name, 1);
    }

    /// Counts calls that ended in some way.
    pub(crate) fn count(&mut self, outcome: &'static str, calls: usize) {
        *self.outcomes.entry(outcome).or_default() += calls as u64;
    }
}
