//! The parts of a server that its requests, streams and updates use.

use psrpc_proto::IdGenerator;

use super::registry::Registry;
use super::side::{Outputs, ServerSide, ServerStreams};
use crate::config::ServerConfig;
use crate::core::time::Now;
use crate::stream::context::{self as stream_context, Rules};

/// The parts of the server that a request or update uses.
pub(super) struct Context<'a> {
    pub(super) now: Now,
    pub(super) outputs: &'a mut Outputs,
    pub(super) ids: &'a mut IdGenerator,
    pub(super) registry: &'a mut Registry,
    pub(super) config: &'a ServerConfig,
    pub(super) streams: &'a mut ServerStreams,
}

impl Context<'_> {
    /// Returns the streams and their context.
    pub(super) fn streams(&mut self) -> (&mut ServerStreams, stream_context::Context<'_, ServerSide>) {
        let Self { now, outputs, ids, config, streams, .. } = self;
        (streams, stream_context::Context { now: *now, outputs, ids, rules: stream_rules(config) })
    }
}

/// Returns the rules for the server's streams.
pub(super) fn stream_rules(config: &ServerConfig) -> Rules<'_> {
    Rules {
        config: &config.streams,
        frame: &config.limits.frame,
        timeout: config.timeout,
        skew_allowance: config.skew_allowance,
        horizon: config.horizon,
    }
}
