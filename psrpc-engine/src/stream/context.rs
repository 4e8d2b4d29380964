//! The parts of an engine that its streams use.

use core::time::Duration;

use psrpc_proto::{FrameLimits, IdGenerator};

use super::side::{Side, SideOutputs};
use crate::config::StreamConfig;
use crate::core::time::Now;

/// The parts of an engine that its streams use.
pub(crate) struct Context<'a, S: Side> {
    pub(crate) now: Now,
    pub(crate) outputs: &'a mut SideOutputs<S>,
    pub(crate) ids: &'a mut IdGenerator,
    pub(crate) rules: Rules<'a>,
}

/// The rules for the streams of an engine.
#[derive(Clone, Copy)]
pub(crate) struct Rules<'a> {
    pub(crate) config: &'a StreamConfig,
    pub(crate) frame: &'a FrameLimits,
    /// The timeout of a message that sets none.
    pub(crate) timeout: Duration,
    pub(crate) skew_allowance: Duration,
    pub(crate) horizon: Duration,
}
