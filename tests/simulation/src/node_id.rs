//! The names of nodes: `NodeId` in traces and for the judge, `Peer` on the bus.

use std::fmt;

/// A client or a server of the run, in one incarnation: its replacement after a crash has another
/// id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NodeId {
    /// The client of this number.
    Client(usize),
    /// The server of this number.
    Server(usize),
}

/// A node, as the bus knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Peer(pub(crate) usize);

impl NodeId {
    /// Returns the node with this number on the bus.
    pub(crate) fn of(Peer(peer): Peer) -> Self {
        if peer.is_multiple_of(2) { NodeId::Client(peer / 2) } else { NodeId::Server(peer / 2) }
    }

    /// Returns the number of the node on the bus.
    pub(crate) fn peer(self) -> Peer {
        match self {
            NodeId::Client(index) => Peer(2 * index),
            NodeId::Server(index) => Peer(2 * index + 1),
        }
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NodeId::Client(index) => write!(f, "client-{index}"),
            NodeId::Server(index) => write!(f, "server-{index}"),
        }
    }
}
