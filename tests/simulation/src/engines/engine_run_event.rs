//! Events of a run of engines, as they are scheduled.

use psrpc_engine::proto::Frame;
use psrpc_engine::{BusError, Token};

use super::user_act::{ClientAct, ServerAct};
use crate::net::NetEvent;
use crate::node_id::NodeId;

/// A scheduled event of a run of engines.
pub(crate) enum EngineRunEvent {
    /// An event of the bus.
    Net(NetEvent),
    /// The bus reports the outcome of a publish, with the frame if the publish failed.
    Published(NodeId, Token, Result<Option<u64>, BusError>, Option<Box<Frame>>),
    /// The bus has room again for frames of an engine.
    Room(NodeId),
    /// The timer of a node is due.
    Tick(NodeId),
    /// The user of a client acts.
    Client(usize, ClientAct),
    /// The user of a server acts.
    Server(usize, ServerAct),
    /// An act of the plan, by its index.
    Act(usize),
    /// A client starts in a slot, with the id of the crashed client of this index, if given.
    StartClient(usize, Option<usize>),
    /// A server starts in a slot, with the id of the crashed server of this index, if given.
    StartServer(usize, Option<usize>),
    /// The bus connects all nodes again.
    Mend,
    /// Faults stop, and users cause no failures any more.
    Calm,
    /// The jumps of all wall clocks are undone.
    ResetClocks,
    /// Fresh calls are made, and must succeed.
    Probe,
    /// A server shuts down while clients make calls.
    Shutdown,
    /// A fresh call is made around that shutdown.
    CallDuringShutdown,
}

impl From<NetEvent> for EngineRunEvent {
    fn from(event: NetEvent) -> Self {
        EngineRunEvent::Net(event)
    }
}
