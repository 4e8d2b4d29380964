//! The engine world: the state that the nodes of a run share.

use std::collections::BTreeMap;
use std::rc::Rc;

use psrpc_engine::{Failure, SubscriptionHandle};

use super::engine_run_event::EngineRunEvent;
use super::methods::Methods;
use crate::judge::fact::Fact;
use crate::judge::model::Model;
use crate::judge::violation::{Checked, Invariant};
use crate::net::Net;
use crate::node_id::NodeId;
use crate::scene::Scene;

/// The scene, the bus and the model of a run.
pub(crate) struct EngineWorld {
    pub(crate) scene: Scene<EngineRunEvent>,
    pub(crate) net: Net<(NodeId, SubscriptionHandle)>,
    pub(crate) model: Model,
    pub(crate) methods: Rc<Methods>,
    /// The number of calls by how they ended.
    pub(crate) outcomes: BTreeMap<&'static str, u64>,
}

impl EngineWorld {
    pub(crate) fn note(&mut self, fact: Fact<'_>) -> Checked {
        self.model.note(fact)
    }

    /// Returns `true` if faults have stopped, and users do nothing that makes a call fail.
    pub(crate) fn is_calm(&self) -> bool {
        self.scene.faults.stopped()
    }

    /// Checks that all subscriptions of a node are live (I13).
    pub(crate) fn all_live(&self, node: NodeId) -> Checked {
        match self.net.pending_channel(node.peer()) {
            Some(channel) => Invariant::I13.violated(format!("{node}: {channel} is not live yet")),
            None => Ok(()),
        }
    }

    pub(crate) fn count_outcome(&mut self, outcome: Result<(), &Failure>) {
        let name = outcome.map_or_else(|failure| failure.reason.as_str(), |()| "answered");
        self.count(name, 1);
    }

    /// Counts calls by how they ended.
    pub(crate) fn count(&mut self, outcome: &'static str, calls: usize) {
        *self.outcomes.entry(outcome).or_default() += calls as u64;
    }
}
