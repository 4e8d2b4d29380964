//! Happenings: everything that can be on the agenda of a run of engines.

use psrpc_engine::proto::Frame;
use psrpc_engine::{BusError, Token};

use super::user_act::{ClientAct, ServerAct};
use crate::net::Post;
use crate::node_id::NodeId;

/// What happens at some moment.
pub(crate) enum EngineHappening {
    /// Something comes of the bus.
    Post(Post),
    /// An engine hears what became of a publish, and of which frame if the bus did not take it.
    Published(NodeId, Token, Result<Option<u64>, BusError>, Option<Box<Frame>>),
    /// The bus has room again for what an engine publishes.
    Room(NodeId),
    /// A node's next timeout has come.
    Tick(NodeId),
    /// Somebody who uses a client does something.
    Client(usize, ClientAct),
    /// Somebody who uses a server does something.
    Server(usize, ServerAct),
    /// An act of the plan, by its place there.
    Act(usize),
    /// A client starts in a slot, perhaps under the id of one that was there before.
    StartClient(usize, Option<usize>),
    /// A server starts in a slot, perhaps under the id of one that was there before.
    StartServer(usize, Option<usize>),
    /// Frames get through everywhere again.
    Mend,
    /// Faults stop, and users behave.
    Calm,
    /// What wall clocks have jumped is undone.
    SetClocks,
    /// Fresh calls must succeed.
    Probe,
    /// A server leaves in peace.
    Farewell,
    /// A fresh call is made around that time.
    Guest,
}

impl From<Post> for EngineHappening {
    fn from(post: Post) -> Self {
        EngineHappening::Post(post)
    }
}
