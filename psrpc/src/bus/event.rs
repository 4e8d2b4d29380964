//! Events: what happens to a bus.

use std::time::Duration;

use psrpc_engine::{BusError, WallTime};

/// Something that happened to a bus. None of the texts shows a secret.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum BusEvent {
    /// The connection was lost. The bus tries to connect again.
    Lost {
        /// When, by the clock on the wall.
        since: WallTime,
        /// Why, in the words of the server or of the operating system.
        cause: BusError,
    },
    /// The bus is connected again.
    Reconnected {
        /// How long it was not.
        after: Duration,
    },
    /// The bus has stopped for good.
    Stopped {
        /// Why.
        cause: BusError,
    },
    /// The server refused a subscription: told once until the subscription is live.
    SubscriptionRefused {
        /// The channel.
        channel: String,
        /// What the server said.
        cause: BusError,
    },
    /// The server refused to lock a queue's frame, so that no member of the queue gets it.
    LockRefused {
        /// The channel of the last one.
        channel: String,
        /// What the server said of the last one.
        cause: BusError,
        /// How many, since the last event of this kind.
        count: u64,
    },
    /// The bus had no room for frames that came in.
    Dropped {
        /// The channel of the last one.
        channel: String,
        /// How many, since the last event of this kind.
        count: u64,
    },
    /// The bus handed frames of a queue to this process that nobody here takes. No other member of
    /// the queue gets them. On NATS the queue-routed methods of a service share one queue, and
    /// the queue subscriptions to its updates are in it too.
    Untaken {
        /// The channel of the last one.
        channel: String,
        /// How many, since the last event of this kind.
        count: u64,
    },
}

impl BusEvent {
    /// Adds an event of the same kind to this one, if events of that kind are counted.
    pub(crate) fn merge(&mut self, later: &BusEvent) -> bool {
        match (self, later) {
            (
                BusEvent::LockRefused { channel, cause, count },
                BusEvent::LockRefused { channel: last_channel, cause: last_cause, count: more },
            ) => {
                channel.clone_from(last_channel);
                cause.clone_from(last_cause);
                *count = count.saturating_add(*more);
                true
            }
            (
                BusEvent::Dropped { channel, count },
                BusEvent::Dropped { channel: last_channel, count: more },
            )
            | (
                BusEvent::Untaken { channel, count },
                BusEvent::Untaken { channel: last_channel, count: more },
            ) => {
                channel.clone_from(last_channel);
                *count = count.saturating_add(*more);
                true
            }
            _ => false,
        }
    }
}
