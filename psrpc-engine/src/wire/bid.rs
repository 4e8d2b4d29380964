//! A server's bid, as its frame carries it.

use psrpc_proto::Text;

/// A server's bid for a call.
#[derive(Clone, Debug, PartialEq)]
pub struct Bid {
    /// Who bids.
    pub server_id: Text,
    /// How well it suits; more is better.
    pub affinity: f32,
}
