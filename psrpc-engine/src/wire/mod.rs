//! The engine's view of the wire: routes, and the checks of received and published frames.

pub(crate) mod bid;
pub(crate) mod incoming;
pub(crate) mod outgoing;
pub(crate) mod route;
