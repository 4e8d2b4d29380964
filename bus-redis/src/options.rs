//! Options of the bus, each with its default.

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

    /// How many bytes of frames may be on their way to the server, and how many may wait for a
    /// lock, before the bus is full. Default 64 MiB each.
    ///
    /// A full bus delays calls, until their deadlines. A frame that would wait for a lock is lost
    /// instead, with a [gap](psrpc::bus::Delivery::Gap) and an
    /// [event](psrpc::bus::BusEvent::Dropped).
    #[must_use]
    pub fn queue_bytes(mut self, bytes: usize) -> Self {
        self.queue_bytes = bytes;
        self
    }

    /// How long an attempt to connect may take. Default 1 s.
    #[must_use]
    pub fn connection_timeout(mut self, timeout: Duration) -> Self {
        self.connection_timeout = timeout;
        self
    }

    /// How long the server may take to answer before the connection counts as lost. Default 3 s.
    #[must_use]
    pub fn response_timeout(mut self, timeout: Duration) -> Self {
        self.response_timeout = timeout;
        self
    }

    /// How long a connection may be idle before the server is asked whether it is still there.
    /// Default 2 s.
    #[must_use]
    pub fn ping_interval(mut self, interval: Duration) -> Self {
        self.ping_interval = interval;
        self
    }

    /// How long to wait at most between two attempts to connect again, less a random part of up to
    /// a half. The first attempt comes after 10 ms, each later one after four times as long. The
    /// delays grow until a connection has served something: a server that accepts connections and
    /// drops them is asked as seldom as one that is gone. Default 1 s.
    #[must_use]
    pub fn reconnect_delay(mut self, delay: Duration) -> Self {
        self.reconnect_delay = delay;
        self
    }

    /// The largest [`skew_allowance`](psrpc::ServerOptions::skew_allowance) of the servers on this
    /// bus: a queued request that has expired by more than that takes no lock, and is handed to
    /// every server, each of which counts it as expired. Default 0.
    #[must_use]
    pub fn skew_allowance(mut self, allowance: Duration) -> Self {
        self.skew_allowance = allowance;
        self
    }

    /// Compresses the frames that the bus publishes from a [threshold](Compression::threshold) on.
    /// Every peer of the fleet must be able to read that: Go peers since v0.7.6, and this
    /// project's. Default: no compression. Compressed frames that come in are read in any case.
    #[must_use]
    pub fn compression(mut self, compression: Compression) -> Self {
        self.compression = Some(compression);
        self
    }

    /// Whether connecting waits for a server that cannot be reached or refuses the bus: it tries
    /// again, with the delays of [`reconnect_delay`](Self::reconnect_delay), until it is connected.
    /// Dropping the future that connects gives up. By default the first failure is the error of
    /// connecting.
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
