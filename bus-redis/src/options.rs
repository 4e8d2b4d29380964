//! Options of the bus and their defaults.

use std::time::Duration;

use psrpc::proto::Compression;

/// Options of a [`RedisBus`](crate::RedisBus).
#[derive(Clone, Debug)]
pub struct RedisOptions {
    pub(crate) queue_bytes: usize,
    pub(crate) connection_timeout: Duration,
    pub(crate) response_timeout: Duration,
    pub(crate) ping_interval: Duration,
    pub(crate) reconnect_delay: Duration,
    pub(crate) skew_allowance: Duration,
    pub(crate) compression: Option<Compression>,
    pub(crate) wait_for_server: bool,
}

impl RedisOptions {
    /// Returns the default options.
    pub fn new() -> Self {
        Self {
            queue_bytes: 64 * 1024 * 1024,
            connection_timeout: Duration::from_secs(1),
            response_timeout: Duration::from_secs(3),
            ping_interval: Duration::from_secs(2),
            reconnect_delay: Duration::from_secs(1),
            skew_allowance: Duration::ZERO,
            compression: None,
            wait_for_server: false,
        }
    }

    /// Sets the maximum size of the frames waiting to be published, and of the received frames
    /// waiting for a lock, in bytes. Default: 64 MiB each.
    ///
    /// When the publish queue is full, calls wait until their deadlines. When too many received
    /// frames wait for a lock, the bus drops further ones and reports a
    /// [gap](psrpc::bus::Delivery::Gap) and an [event](psrpc::bus::BusEvent::Dropped).
    #[must_use]
    pub fn queue_bytes(mut self, bytes: usize) -> Self {
        self.queue_bytes = bytes;
        self
    }

    /// Sets the timeout of one attempt to connect. Default: 1 s.
    #[must_use]
    pub fn connection_timeout(mut self, timeout: Duration) -> Self {
        self.connection_timeout = timeout;
        self
    }

    /// Sets how long the server may take to reply before the connection counts as lost. Default: 3
    /// s.
    #[must_use]
    pub fn response_timeout(mut self, timeout: Duration) -> Self {
        self.response_timeout = timeout;
        self
    }

    /// Sets how long a connection may be idle before the bus pings the server. Default: 2 s.
    #[must_use]
    pub fn ping_interval(mut self, interval: Duration) -> Self {
        self.ping_interval = interval;
        self
    }

    /// Sets the maximum delay between two attempts to reconnect. Default: 1 s.
    ///
    /// The first delay is 10 ms, and each later one is four times as long, minus a random part of
    /// up to one half. The delay is reset only when a connection has served a command, so a server
    /// that accepts connections and then drops them is not contacted more often than one that is
    /// down.
    #[must_use]
    pub fn reconnect_delay(mut self, delay: Duration) -> Self {
        self.reconnect_delay = delay;
        self
    }

    /// Sets the largest [`skew_allowance`](psrpc::ServerOptions::skew_allowance) of the servers on
    /// this bus. Default: 0.
    ///
    /// A queued request that has expired by more than this takes no lock. The bus delivers it to
    /// every server, and each counts it as expired.
    #[must_use]
    pub fn skew_allowance(mut self, allowance: Duration) -> Self {
        self.skew_allowance = allowance;
        self
    }

    /// Compresses published frames whose size reaches a [threshold](Compression::threshold).
    /// Default: no compression.
    ///
    /// All peers must support compression: Go peers since v0.7.6, and all versions of this crate.
    /// The bus always accepts compressed frames.
    #[must_use]
    pub fn compression(mut self, compression: Compression) -> Self {
        self.compression = Some(compression);
        self
    }

    /// Sets whether connecting retries while the server is unreachable or refuses the bus, with the
    /// delays of [`reconnect_delay`](Self::reconnect_delay). Default: `false`, so connecting
    /// returns the first error.
    ///
    /// Dropping the future cancels the attempts.
    #[must_use]
    pub fn wait_for_server(mut self, wait: bool) -> Self {
        self.wait_for_server = wait;
        self
    }
}

impl Default for RedisOptions {
    fn default() -> Self {
        Self::new()
    }
}
