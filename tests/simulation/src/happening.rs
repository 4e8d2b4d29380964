//! Happenings: everything that can stand on the agenda of a run.

use std::fmt;

use psrpc_engine::{BusError, Token};

use crate::caller::CallerAct;
use crate::fault::Fault;
use crate::host::HostAct;
use crate::net::{Delivery, Place};

/// A client or a server of the run; each incarnation of a server counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NodeId {
    Client(usize),
    Server(usize),
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NodeId::Client(index) => write!(f, "client-{index}"),
            NodeId::Server(index) => write!(f, "server-{index}"),
        }
    }
}

/// What happens at some moment.
pub(crate) enum Happening {
    /// The bus hands frames to a subscription from here on.
    Joined(Place),
    /// An engine hears that its subscription is live.
    Confirmed(Place),
    /// A subscription has ended, and its engine hears so.
    Ended(Place),
    /// A frame arrives.
    Delivered(Place, Delivery),
    /// An engine hears what became of a publish.
    Published(NodeId, Token, Result<Option<u64>, BusError>),
    /// The bus has room again for what an engine publishes.
    Room(NodeId),
    /// A node's next timeout has come.
    Tick(NodeId),
    /// Somebody who uses a client does something.
    Caller(usize, CallerAct),
    /// Somebody who uses a server does something.
    Host(usize, HostAct),
    /// A server starts in a slot.
    Start(usize),
    /// The server in a slot is drained or killed.
    Stop(usize, Fault),
    /// Faults stop, and users behave.
    Calm,
    /// Fresh calls must succeed.
    Probe,
}
