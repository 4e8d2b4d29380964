//! A Redis Cluster: which node serves which slot, and the locks at their nodes.
//!
//! Every node forwards published messages to all others, so both connections of the bus may lead to
//! any node. A lock is a key, which only the master of its slot takes.

mod locks;
mod slots;

pub(crate) use locks::ClusterLocks;
pub(crate) use slots::Slots;
