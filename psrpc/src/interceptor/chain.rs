//! All interceptors and hooks of a client or a server.

use std::sync::Arc;

use psrpc_engine::proto::Metadata;

use super::call::CallInterceptor;
use super::handler::HandlerInterceptor;
use super::hooks::Hooks;
use super::multi::MultiCallInterceptor;
use super::recovery::PanicHook;
use super::stream::StreamInterceptor;
use crate::info::{CallInfo, Side};
use crate::request::Request;
use crate::{guard, log};

/// The interceptors and hooks of a client.
#[derive(Clone, Default)]
pub(crate) struct ClientInterceptors {
    pub(crate) calls: Vec<Arc<dyn CallInterceptor>>,
    pub(crate) multi_calls: Vec<Arc<dyn MultiCallInterceptor>>,
    pub(crate) streams: Vec<Arc<dyn StreamInterceptor>>,
    pub(crate) hooks: Hooks,
}

impl ClientInterceptors {
    /// Returns `true` if there are no interceptors and hooks of unary calls.
    pub(crate) fn is_empty_for_calls(&self) -> bool {
        self.calls.is_empty() && self.hooks.is_empty()
    }

    pub(crate) fn is_empty_for_multi_calls(&self) -> bool {
        self.multi_calls.is_empty() && self.hooks.is_empty()
    }

    /// Appends the interceptors and hooks of `other`.
    pub(crate) fn append(&mut self, mut other: Self) {
        self.calls.append(&mut other.calls);
        self.multi_calls.append(&mut other.multi_calls);
        self.streams.append(&mut other.streams);
        self.hooks.append(other.hooks);
    }
}

impl std::fmt::Debug for ClientInterceptors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { calls, multi_calls, streams, hooks } = self;
        let (calls, multi_calls, streams) = (calls.len(), multi_calls.len(), streams.len());
        write!(
            f,
            "{calls} interceptors of calls, {multi_calls} of multi calls, {streams} of streams, {hooks:?}"
        )
    }
}

/// The interceptors and hooks of a server.
#[derive(Clone, Default)]
pub(crate) struct ServerInterceptors {
    pub(crate) handlers: Vec<Arc<dyn HandlerInterceptor>>,
    pub(crate) streams: Vec<Arc<dyn StreamInterceptor>>,
    pub(crate) panic_hooks: Vec<PanicHook>,
    pub(crate) skip_claim: Option<SkipClaim>,
}

/// A function that returns `true` for requests to run without waiting for a grant.
pub(crate) type SkipClaim = Arc<dyn Fn(&CallInfo, &Metadata) -> bool + Send + Sync>;

impl ServerInterceptors {
    pub(crate) fn is_empty(&self) -> bool {
        self.handlers.is_empty()
            && self.streams.is_empty()
            && self.panic_hooks.is_empty()
            && self.skip_claim.is_none()
    }

    /// Appends the interceptors and hooks of `other`.
    pub(crate) fn append(&mut self, mut other: Self) {
        self.handlers.append(&mut other.handlers);
        self.streams.append(&mut other.streams);
        self.panic_hooks.append(&mut other.panic_hooks);
        self.skip_claim = other.skip_claim.or(self.skip_claim.take());
    }

    /// Returns `true` if the request is to run without waiting for a grant.
    pub(crate) fn skips_claim<T>(&self, request: &Request<T>) -> bool {
        // If the function panics, the server bids for the request as usual.
        self.skip_claim.as_ref().is_some_and(|skip_claim| {
            guard::catch(|| skip_claim(&request.info(), request.metadata())).unwrap_or_else(|panicked| {
                log::panicked(Side::Server, "a skip-claim function", Some(&request.label()), &panicked);
                false
            })
        })
    }
}

impl std::fmt::Debug for ServerInterceptors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { handlers, streams, panic_hooks, skip_claim } = self;
        let skips_claim = if skip_claim.is_some() { "with skip_claim" } else { "without skip_claim" };
        let (handlers, streams) = (handlers.len(), streams.len());
        write!(
            f,
            "{handlers} interceptors of handlers, {streams} of streams, {} panic hooks, {skips_claim}",
            panic_hooks.len()
        )
    }
}
