//! Variations: runs of a seed without some of its parts.

use std::collections::BTreeSet;

use psrpc_engine::Time;

use super::engine_plan::EnginePlan;
use crate::fault::FaultOccurrence;

/// A part of a plan that can be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    /// An act, by its index in the plan.
    Act(usize),
    /// A server shuts down while clients make calls.
    Shutdown,
    /// A fresh call around that shutdown, by its index in the plan.
    CallDuringShutdown(usize),
    /// The fresh calls after the faults have stopped.
    Probe,
    /// The client in a slot.
    Client(usize),
    /// The server in a slot.
    Server(usize),
}

/// The parts of a run that are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Variation {
    /// If set, all other parts of the plan are left out.
    pub(crate) parts: Option<BTreeSet<Part>>,
    /// If set, all other random faults are left out.
    pub(crate) faults: Option<BTreeSet<FaultOccurrence>>,
}

impl Variation {
    pub(crate) fn keeps(&self, part: Part) -> bool {
        self.parts.as_ref().is_none_or(|parts| parts.contains(&part))
    }
}

impl Part {
    /// Returns `true` for a client or a server. These exist from the start, and all other parts act
    /// on them.
    pub(crate) fn is_node(&self) -> bool {
        matches!(self, Part::Client(_) | Part::Server(_))
    }

    /// Iterates over all parts of a plan, with their times.
    pub(crate) fn all(plan: &EnginePlan) -> impl Iterator<Item = (Self, Time)> {
        let acts = plan.acts.iter().enumerate().map(|(index, (at, _))| (Part::Act(index), *at));
        let calls_during_shutdown = plan
            .calls_during_shutdown
            .iter()
            .enumerate()
            .map(|(index, at)| (Part::CallDuringShutdown(index), *at));
        let once = [(Part::Shutdown, plan.shutdown), (Part::Probe, plan.probe)];
        let clients = (0..plan.clients.len()).map(Part::Client);
        let nodes = clients.chain((0..plan.servers.len()).map(Part::Server));
        acts.chain(once).chain(calls_during_shutdown).chain(nodes.map(|node| (node, Time::ZERO)))
    }
}
