//! The options shared by clients and servers.

use std::time::Duration;

use psrpc_engine::proto::Text;
use psrpc_engine::{ConfigError, SlowConsumer};

use crate::driver::QUEUED_FRAMES;
use crate::middleware::Observers;

/// The options shared by clients and servers. `None` stands for the default.
#[derive(Clone, Debug, Default)]
pub(crate) struct CommonOptions {
    pub(crate) id: Option<Text>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) skew_allowance: Option<Duration>,
    pub(crate) queued_frames: Option<usize>,
    pub(crate) unread_per_stream: Option<usize>,
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
        self.queued_frames = other.queued_frames.or(self.queued_frames);
        self.unread_per_stream = other.unread_per_stream.or(self.unread_per_stream);
        self.stream_idle_timeout = other.stream_idle_timeout.or(self.stream_idle_timeout);
        self.slow_consumer = other.slow_consumer.or(self.slow_consumer);
        self.observers.append(other.observers);
    }

    /// Returns the capacity of a subscription, in frames.
    pub(crate) fn capacity(&self) -> Result<usize, ConfigError> {
        let capacity = self.queued_frames.unwrap_or(QUEUED_FRAMES);
        ConfigError::check_limit("queued_frames", capacity).map(|()| capacity)
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
        if let Some(messages) = common.unread_per_stream {
            $config.limits.streams.unread_per_stream = messages;
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
        $(#[$queued_frames:meta])* queued_frames;
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

        $(#[$queued_frames])*
        #[must_use]
        pub fn queued_frames(mut self, frames: usize) -> Self {
            self.common.queued_frames = Some(frames);
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

        /// Sets how many messages of a stream are queued for their consumer. The policy for
        /// [slow consumers](Self::slow_consumer) decides about further messages. At least 1; takes
        /// precedence over [`limits`](Self::limits). Default: 1,024.
        #[must_use]
        pub fn unread_per_stream(mut self, messages: usize) -> Self {
            self.common.unread_per_stream = Some(messages);
            self
        }

        /// Sets what happens to a stream message for which its consumer has no room. Default: the
        /// message is held back, and its sender waits.
        #[must_use]
        pub fn slow_consumer(mut self, policy: psrpc_engine::SlowConsumer) -> Self {
            self.common.slow_consumer = Some(policy);
            self
        }
    };
}

pub(crate) use {common_options, configure};
