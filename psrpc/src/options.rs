//! The options shared by clients and servers.

use std::time::Duration;

use psrpc_engine::SlowConsumer;
use psrpc_engine::proto::Text;

use crate::driver::CHANNEL_SIZE;
use crate::middleware::Observers;

/// The options shared by clients and servers. `None` stands for the default.
#[derive(Clone, Debug, Default)]
pub(crate) struct CommonOptions {
    pub(crate) id: Option<Text>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) skew_allowance: Option<Duration>,
    pub(crate) channel_size: Option<usize>,
    pub(crate) stream_idle_timeout: Option<Duration>,
    pub(crate) slow_consumer: Option<SlowConsumer>,
    pub(crate) observers: Observers,
}

impl CommonOptions {
    /// Merges another set of options into this one. Its values take precedence; its observers come
    /// after those in this set.
    pub(crate) fn append(&mut self, other: Self) {
        self.id = other.id.or(self.id.take());
        self.timeout = other.timeout.or(self.timeout);
        self.skew_allowance = other.skew_allowance.or(self.skew_allowance);
        self.channel_size = other.channel_size.or(self.channel_size);
        self.stream_idle_timeout = other.stream_idle_timeout.or(self.stream_idle_timeout);
        self.slow_consumer = other.slow_consumer.or(self.slow_consumer);
        self.observers.append(other.observers);
    }

    /// Returns the capacity of a subscription, in frames.
    pub(crate) fn capacity(&self) -> usize {
        self.channel_size.unwrap_or(CHANNEL_SIZE)
    }
}

/// Applies the shared options to the configuration of an engine.
macro_rules! configure {
    ($common:expr, $config:ident) => {{
        let common = &$common;
        $config.id = common.id.clone().unwrap_or($config.id);
        $config.timeout = common.timeout.unwrap_or($config.timeout);
        $config.skew_allowance = common.skew_allowance.unwrap_or($config.skew_allowance);
        $config.streams.idle_timeout = common.stream_idle_timeout.or($config.streams.idle_timeout);
        $config.streams.slow_consumer = common.slow_consumer.unwrap_or($config.streams.slow_consumer);
        if let Some(size) = common.channel_size {
            $config.limits.streams.unread_per_stream = size.max(1);
        }
    }};
}

/// Generates the setters shared by clients and servers. The caller documents each setter whose
/// meaning differs between the two.
macro_rules! common_options {
    (
        $(#[$id:meta])* id;
        $(#[$timeout:meta])* timeout;
        $(#[$skew_allowance:meta])* skew_allowance;
        $(#[$channel_size:meta])* channel_size;
        $(#[$stream_interceptor:meta])* stream_interceptor;
        $(#[$observer:meta])* observer;
    ) => {
        $(#[$id])*
        #[must_use]
        pub fn id(mut self, id: impl Into<String>) -> Self {
            self.common.id = Some(id.into().into());
            self
        }

        $(#[$timeout])*
        #[must_use]
        pub fn timeout(mut self, timeout: std::time::Duration) -> Self {
            self.common.timeout = Some(timeout);
            self
        }

        $(#[$skew_allowance])*
        #[must_use]
        pub fn skew_allowance(mut self, allowance: std::time::Duration) -> Self {
            self.common.skew_allowance = Some(allowance);
            self
        }

        $(#[$channel_size])*
        #[must_use]
        pub fn channel_size(mut self, frames: usize) -> Self {
            self.common.channel_size = Some(frames);
            self
        }

        $(#[$stream_interceptor])*
        #[must_use]
        pub fn stream_interceptor(mut self, interceptor: impl crate::interceptor::StreamInterceptor) -> Self {
            self.interceptors.streams.push(std::sync::Arc::new(interceptor));
            self
        }

        $(#[$observer])*
        #[must_use]
        pub fn observer(
            mut self,
            observer: impl Fn(&crate::middleware::Observation) + Send + Sync + 'static,
        ) -> Self {
            self.common.observers.push(std::sync::Arc::new(observer));
            self
        }

        /// Sets how long a stream may be silent before it ends. Default: forever, since the
        /// protocol has no keepalive, and a peer may be silent on purpose.
        #[must_use]
        pub fn stream_idle_timeout(mut self, timeout: std::time::Duration) -> Self {
            self.common.stream_idle_timeout = Some(timeout);
            self
        }

        /// Sets what happens to a stream message for which its consumer has no room. Default: the
        /// message is discarded.
        #[must_use]
        pub fn slow_consumer(mut self, policy: psrpc_engine::SlowConsumer) -> Self {
            self.common.slow_consumer = Some(policy);
            self
        }
    };
}

pub(crate) use {common_options, configure};
