//! Variations: a run of a seed from which something is left out.

use std::collections::BTreeSet;

use psrpc_engine::Time;

use super::engine_plan::EnginePlan;
use crate::fault::Strike;

/// Something of a plan that can be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    /// An act, by its place in the plan.
    Act(usize),
    /// A server leaves in peace.
    Farewell,
    /// A fresh call is made around that time, by its place in the plan.
    Guest(usize),
    /// Every client calls every method once faults have stopped.
    Probe,
    /// There is a client in a slot.
    Client(usize),
    /// There is a server in a slot.
    Server(usize),
}

/// What of a run is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Variation {
    /// The only parts of the plan that are kept, if some are left out.
    pub(crate) parts: Option<BTreeSet<Part>>,
    /// The only faults by chance that are kept, if some are left out.
    pub(crate) strikes: Option<BTreeSet<Strike>>,
}

impl Variation {
    pub(crate) fn keeps(&self, part: Part) -> bool {
        self.parts.as_ref().is_none_or(|parts| parts.contains(&part))
    }
}

impl Part {
    /// Whether it is there from the beginning, and all else is done by it or to it.
    pub(crate) fn is_node(&self) -> bool {
        matches!(self, Part::Client(_) | Part::Server(_))
    }

    /// All parts of a plan, and when each is to happen.
    pub(crate) fn all(plan: &EnginePlan) -> impl Iterator<Item = (Self, Time)> {
        let acts = plan.acts.iter().enumerate().map(|(index, (at, _))| (Part::Act(index), *at));
        let guests = plan.guests.iter().enumerate().map(|(index, at)| (Part::Guest(index), *at));
        let once = [(Part::Farewell, plan.farewell), (Part::Probe, plan.probe)];
        let clients = (0..plan.clients.len()).map(Part::Client);
        let nodes = clients.chain((0..plan.servers.len()).map(Part::Server));
        acts.chain(once).chain(guests).chain(nodes.map(|node| (node, Time::ZERO)))
    }
}
