//! What streams need of the engine that they belong to.

use core::time::Duration;

use psrpc_proto::{FrameLimits, IdGenerator};

use super::side::{Side, SideOutputs};
use crate::config::StreamConfig;
use crate::core::time::Now;

/// What streams need of the engine that they belong to.
pub(crate) struct Context<'a, S: Side> {
    pub(crate) now: Now,
    pub(crate) outputs: &'a mut SideOutputs<S>,
    pub(crate) ids: &'a mut IdGenerator,
    pub(crate) rules: Rules<'a>,
}

/// How streams are to behave.
#[derive(Clone, Copy)]
pub(crate) struct Rules<'a> {
    pub(crate) config: &'a StreamConfig,
    pub(crate) frame: &'a FrameLimits,
    /// How long a message may take that does not say so itself.
    pub(crate) timeout: Duration,
    pub(crate) skew_allowance: Duration,
    pub(crate) horizon: Duration,
}
