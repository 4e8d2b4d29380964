//! What can be chosen about a connection.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use psrpc::proto::{Compression, FrameLimits};

/// The longest delay before a refused subscription is asked for again.
pub(crate) const RETRY_DELAY: Duration = Duration::from_secs(1);

/// What can be chosen about a connection; each has a default.
#[derive(Clone, Debug)]
pub struct NatsOptions {
    pub(crate) name: String,
    pub(crate) inbox_prefix: String,
    pub(crate) queue_bytes: usize,
    pub(crate) connection_timeout: Duration,
    pub(crate) reconnect_delay: Duration,
    pub(crate) ping_interval: Duration,
    pub(crate) frame_limits: FrameLimits,
    pub(crate) compression: Option<Compression>,
    pub(crate) wait_for_server: bool,
    pub(crate) separate_updates: BTreeSet<(String, String)>,
}

impl Default for NatsOptions {
    fn default() -> Self {
        Self {
            name: "psrpc".to_owned(),
            inbox_prefix: "_INBOX".to_owned(),
            queue_bytes: 8 * 1024 * 1024,
            connection_timeout: Duration::from_secs(2),
            reconnect_delay: Duration::from_secs(1),
            ping_interval: Duration::from_secs(10),
            frame_limits: FrameLimits::DEFAULT,
            compression: None,
            wait_for_server: false,
            separate_updates: BTreeSet::new(),
        }
    }
}

impl NatsOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// The name that the server lists the connection by. Default `psrpc`.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// What the subjects of the bus's own inboxes begin with: the user must be allowed to publish
    /// and subscribe to everything below it. Default `_INBOX`.
    #[must_use]
    pub fn inbox_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.inbox_prefix = prefix.into();
        self
    }

    /// How many bytes of frames wait for the connection before the bus is full; one frame more at
    /// most. Default 8 MiB.
    #[must_use]
    pub fn queue_bytes(mut self, bytes: usize) -> Self {
        self.queue_bytes = bytes;
        self
    }

    /// How long a server may take to let us in. Default 2 s.
    #[must_use]
    pub fn connection_timeout(mut self, timeout: Duration) -> Self {
        self.connection_timeout = timeout;
        self
    }

    /// How long to wait between two attempts to connect again, at most: the first is made at once,
    /// each wait is up to twice the one before, with jitter, and there is no last one. Default
    /// 1 s.
    #[must_use]
    pub fn reconnect_delay(mut self, longest: Duration) -> Self {
        self.reconnect_delay = longest;
        self
    }

    /// How often a silent server is asked whether it is there; after two questions without an
    /// answer the connection is given up. Default 10 s.
    #[must_use]
    pub fn ping_interval(mut self, interval: Duration) -> Self {
        self.ping_interval = interval;
        self
    }

    /// What a frame may carry: one beyond a limit is handed on undecoded. Default
    /// [`FrameLimits::DEFAULT`].
    #[must_use]
    pub fn frame_limits(mut self, limits: FrameLimits) -> Self {
        self.frame_limits = limits;
        self
    }

    /// Compresses the frames that the bus publishes from a [threshold](Compression::threshold) on.
    /// Every peer of the fleet must be able to read that: Go peers since v0.7.6, and this
    /// project's. The server's `max_payload` then applies to the compressed frame. Default: no
    /// compression. Compressed frames that come in are read in any case.
    #[must_use]
    pub fn compression(mut self, compression: Compression) -> Self {
        self.compression = Some(compression);
        self
    }

    /// Whether connecting waits for a server that lets us in, instead of failing when none does.
    /// Dropping the future gives up. Default `false`.
    #[must_use]
    pub fn wait_for_server(mut self, wait: bool) -> Self {
        self.wait_for_server = wait;
        self
    }

    /// Gives the queue subscriptions to the updates of a method a queue group of their own.
    /// `service` and `method` are the names that the channels have.
    ///
    /// Without it all queue subscriptions of a service share one queue group: the servers of its
    /// queue-routed methods and the subscribers to its updates [take messages from each
    /// other](crate#updates-and-requests). Set it on every bus of the fleet. It is safe where
    /// no Go client subscribes to the same updates: a Go client stays in the shared group, so
    /// that each update would be handled twice. Default: no method.
    #[must_use]
    pub fn separate_updates(mut self, service: impl Into<String>, method: impl Into<String>) -> Self {
        self.separate_updates.insert((service.into(), method.into()));
        self
    }
}

/// How long to wait before an attempt: none before the first, then 20 ms and twice as much each
/// time, up to `longest`; of that a random part between half and all.
pub(crate) fn delay(attempt: usize, longest: Duration) -> Duration {
    if attempt <= 1 {
        return Duration::ZERO;
    }
    let doublings = u32::try_from(attempt - 2).unwrap_or(u32::MAX);
    let full = Duration::from_millis(20).saturating_mul(2_u32.saturating_pow(doublings)).min(longest);
    // A new hasher's keys are as random as jitter has to be.
    let random = RandomState::new().hash_one(attempt) % 1024;
    full / 2 + full * u32::try_from(random).unwrap_or(0) / 2048
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_up_to_the_longest_and_differ() {
        let longest = Duration::from_secs(1);
        assert_eq!(delay(1, longest), Duration::ZERO);
        for attempt in 2..200 {
            let full = Duration::from_millis(20 << (attempt - 2).min(10)).min(longest);
            let delay = delay(attempt, longest);
            assert!(full / 2 <= delay && delay <= full, "{delay:?} at attempt {attempt}");
        }
        assert!((0..100).any(|_| delay(50, longest) != delay(50, longest)));
    }
}
