//! What everything in flight at a server needs of the rest of it.

use psrpc_proto::IdGenerator;

use super::registry::Registry;
use super::side::{Outputs, ServerSide, ServerStreams};
use crate::config::ServerConfig;
use crate::core::time::Now;
use crate::stream::context::{self as stream_context, Rules};

/// What requests and updates need of the rest of the server.
pub(super) struct Context<'a> {
    pub(super) now: Now,
    pub(super) outputs: &'a mut Outputs,
    pub(super) ids: &'a mut IdGenerator,
    pub(super) registry: &'a mut Registry,
    pub(super) config: &'a ServerConfig,
    pub(super) streams: &'a mut ServerStreams,
}

impl Context<'_> {
    /// The streams, with what they need.
    pub(super) fn streams(&mut self) -> (&mut ServerStreams, stream_context::Context<'_, ServerSide>) {
        let Self { now, outputs, ids, config, streams, .. } = self;
        (streams, stream_context::Context { now: *now, outputs, ids, rules: stream_rules(config) })
    }
}

/// How the streams of a server behave.
pub(super) fn stream_rules(config: &ServerConfig) -> Rules<'_> {
    Rules {
        config: &config.streams,
        frame: &config.limits.frame,
        timeout: config.timeout,
        skew_allowance: config.skew_allowance,
        horizon: config.horizon,
    }
}
