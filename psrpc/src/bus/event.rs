//! Events of a bus connection.

use std::time::Duration;

use psrpc_engine::{BusError, WallTime};

/// An event of a bus connection. No text in it contains a secret.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum BusEvent {
    /// The connection was lost. The bus tries to connect again.
    ConnectionLost {
        /// The wall-clock time of the loss.
        since: WallTime,
        /// The cause, as reported by the server or the operating system.
        cause: BusError,
    },
    /// The bus is connected again.
    Reconnected {
        /// How long the bus was disconnected.
        after: Duration,
    },
    /// The bus stopped for good.
    Stopped {
        /// The cause.
        cause: BusError,
    },
    /// The server refused a subscription. Not reported again until the subscription has been live.
    SubscriptionRefused {
        /// The channel.
        channel: String,
        /// The server's error message.
        cause: BusError,
    },
    /// The server refused to lock queue frames, so no member of the queue receives them.
    LockRefused {
        /// The channel of the most recent frame.
        channel: String,
        /// The server's error message for the most recent frame.
        cause: BusError,
        /// The number of frames since the last event of this kind.
        count: u64,
    },
    /// The bus dropped incoming frames for lack of room.
    Dropped {
        /// The channel of the most recent frame.
        channel: String,
        /// The number of frames since the last event of this kind.
        count: u64,
    },
    /// The bus handed queue frames to this process that no subscriber here handles. No other member
    /// of the queue receives them.
    ///
    /// On NATS, the queue-routed methods of a service share one queue with the queue subscriptions
    /// to its updates.
    Misrouted {
        /// The channel of the most recent frame.
        channel: String,
        /// The number of frames since the last event of this kind.
        count: u64,
    },
}

impl BusEvent {
    /// Merges a later event of the same kind into this one. Returns `false` if events of this kind
    /// are not merged.
    pub(crate) fn merge(&mut self, later: &BusEvent) -> bool {
        match (self, later) {
            (
                BusEvent::LockRefused { channel, cause, count },
                BusEvent::LockRefused { channel: last_channel, cause: last_cause, count: last_count },
            ) => {
                channel.clone_from(last_channel);
                cause.clone_from(last_cause);
                *count = count.saturating_add(*last_count);
                true
            }
            (
                BusEvent::Dropped { channel, count },
                BusEvent::Dropped { channel: last_channel, count: last_count },
            )
            | (
                BusEvent::Misrouted { channel, count },
                BusEvent::Misrouted { channel: last_channel, count: last_count },
            ) => {
                channel.clone_from(last_channel);
                *count = count.saturating_add(*last_count);
                true
            }
            _ => false,
        }
    }
}
