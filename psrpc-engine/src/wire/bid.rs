//! A server's bid.

use psrpc_proto::Text;

/// A server's bid for a call.
#[derive(Clone, Debug, PartialEq)]
pub struct Bid {
    /// The bidding server.
    pub server_id: Text,
    /// How well the server suits the call; higher is better.
    pub affinity: f32,
}
