//! What is around a call: interceptors and hooks.
//!
//! A call without any passes none of this.

mod call;
mod handler;
mod hooks;

pub(crate) use self::call::intercepted;
pub use self::call::{CallInterceptor, NextCall, Outgoing};
pub(crate) use self::handler::handled;
pub use self::handler::{HandlerInterceptor, NextHandler};
pub(crate) use self::hooks::Hooks;

use std::sync::Arc;

/// What a client has around its calls.
#[derive(Clone, Default)]
pub(crate) struct AroundCalls {
    pub(crate) interceptors: Vec<Arc<dyn CallInterceptor>>,
    pub(crate) hooks: Hooks,
}

impl AroundCalls {
    pub(crate) fn is_empty(&self) -> bool {
        self.interceptors.is_empty() && self.hooks.is_empty()
    }

    /// Adds what another has, after what is here.
    pub(crate) fn append(&mut self, mut other: Self) {
        self.interceptors.append(&mut other.interceptors);
        self.hooks.append(other.hooks);
    }
}

impl std::fmt::Debug for AroundCalls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { interceptors, hooks } = self;
        write!(f, "{} interceptors, {hooks:?}", interceptors.len())
    }
}

/// What a server has around its handlers.
#[derive(Clone, Default)]
pub(crate) struct AroundHandlers {
    pub(crate) interceptors: Vec<Arc<dyn HandlerInterceptor>>,
}

impl AroundHandlers {
    pub(crate) fn is_empty(&self) -> bool {
        self.interceptors.is_empty()
    }

    /// Adds what another has, after what is here.
    pub(crate) fn append(&mut self, mut other: Self) {
        self.interceptors.append(&mut other.interceptors);
    }
}

impl std::fmt::Debug for AroundHandlers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} interceptors", self.interceptors.len())
    }
}
