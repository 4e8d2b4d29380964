//! The wire, seen from an engine: where frames go, and what is checked of those that come in and go
//! out.

pub(crate) mod bid;
pub(crate) mod incoming;
pub(crate) mod outgoing;
pub(crate) mod route;
