//! Options of the bus and their defaults.

use std::borrow::Cow;
use std::time::Duration;

use psrpc::proto::Compression;
#[cfg(feature = "tls")]
use psrpc_bus_net::TlsOptions;
use psrpc_bus_net::{Provider, ProviderError};

use crate::credentials::Credentials;
use crate::error::ConnectError;
use crate::target::{Target, TargetKind};

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
    pub(crate) credentials: Option<Provider<Credentials>>,
    pub(crate) sentinel_credentials: Option<Provider<Credentials>>,
    #[cfg(feature = "tls")]
    pub(crate) tls: Option<Provider<TlsOptions>>,
    #[cfg(feature = "tls")]
    pub(crate) sentinel_tls: Option<Provider<TlsOptions>>,
    pub(crate) channel_prefix: String,
}

impl RedisOptions {
    /// Returns the default options.
    pub fn new() -> Self {
        Self {
            queue_bytes: 64 * 1024 * 1024,
            connection_timeout: Duration::from_secs(2),
            response_timeout: Duration::from_secs(3),
            ping_interval: Duration::from_secs(2),
            reconnect_delay: Duration::from_secs(1),
            skew_allowance: Duration::ZERO,
            compression: None,
            wait_for_server: false,
            credentials: None,
            sentinel_credentials: None,
            #[cfg(feature = "tls")]
            tls: None,
            #[cfg(feature = "tls")]
            sentinel_tls: None,
            channel_prefix: String::new(),
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

    /// Sets the timeout of one attempt to connect. Default: 2 s.
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

    /// Sets how often the bus [checks](crate#checks) each connection. Default: 2 s.
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

    /// Sets a function that returns the user and the password, in place of those in the URL.
    /// Default: none.
    ///
    /// The bus calls it for each connection, so new credentials take effect when the bus
    /// reconnects. The function runs in a task of the bus and must not block for long. If it
    /// returns an error, the attempt to connect fails, and the text of the error becomes part of
    /// the cause.
    #[must_use]
    pub fn credentials<E: Into<ProviderError>>(
        mut self,
        provider: impl Fn() -> Result<Credentials, E> + Send + Sync + 'static,
    ) -> Self {
        self.credentials = Some(Provider::new("credentials", provider));
        self
    }

    /// Sets a function that returns the user and the password for the sentinels. Default: none, so
    /// the bus does not log in to them.
    ///
    /// The bus calls it like the function of [`credentials`](Self::credentials). Credentials in the
    /// URL are for the master alone.
    #[must_use]
    pub fn sentinel_credentials<E: Into<ProviderError>>(
        mut self,
        provider: impl Fn() -> Result<Credentials, E> + Send + Sync + 'static,
    ) -> Self {
        self.sentinel_credentials = Some(Provider::new("credentials", provider));
        self
    }

    /// Sets a function that returns the TLS options, for a URL that asks for TLS. Default:
    /// [`TlsOptions::new`].
    ///
    /// The bus calls it for each connection, so certificates can be replaced while the bus runs.
    /// The function may read small files. If it returns an error, the attempt to connect fails, and
    /// the text of the error becomes part of the cause.
    ///
    /// ```no_run
    /// use std::fs;
    /// use psrpc_bus_redis::{RedisOptions, TlsOptions};
    ///
    /// let options = RedisOptions::new().tls(|| -> std::io::Result<_> {
    ///     let (certificate, key) = (fs::read("client.pem")?, fs::read("client-key.pem")?);
    ///     Ok(TlsOptions::new().ca(fs::read("ca.pem")?).client_certificate(certificate, key))
    /// });
    /// ```
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls<E: Into<ProviderError>>(
        mut self,
        provider: impl Fn() -> Result<TlsOptions, E> + Send + Sync + 'static,
    ) -> Self {
        self.tls = Some(Provider::new("TLS options", provider));
        self
    }

    /// Sets a function that returns the TLS options for the sentinels. Default: those of
    /// [`tls`](Self::tls).
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn sentinel_tls<E: Into<ProviderError>>(
        mut self,
        provider: impl Fn() -> Result<TlsOptions, E> + Send + Sync + 'static,
    ) -> Self {
        self.sentinel_tls = Some(Provider::new("TLS options", provider));
        self
    }

    /// Sets a text that precedes the name of every channel and the key of every lock. Default:
    /// none.
    ///
    /// Fleets with different prefixes can share a server without receiving each other's frames.
    /// **Peers in Go have no such prefix: a bus that sets one does not reach them.**
    #[must_use]
    pub fn channel_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.channel_prefix = prefix.into();
        self
    }

    /// Returns the name of a channel or a key at the server.
    pub(crate) fn prefixed<'a>(&self, name: &'a str) -> Cow<'a, str> {
        match self.channel_prefix.as_str() {
            "" => name.into(),
            prefix => format!("{prefix}{name}").into(),
        }
    }

    /// Refuses options that the target cannot use.
    pub(crate) fn check(&self, target: &Target) -> Result<(), ConnectError> {
        let refused = |cause: &str| Err(ConnectError::Url { cause: cause.into() });
        let for_sentinels = self.sentinel_credentials.is_some();
        #[cfg(feature = "tls")]
        let for_sentinels = for_sentinels || self.sentinel_tls.is_some();
        if for_sentinels && !matches!(target.kind, TargetKind::Sentinel { .. }) {
            return refused("there are options for sentinels, which need a `redis+sentinel://` URL");
        }
        #[cfg(feature = "tls")]
        if (self.tls.is_some() || self.sentinel_tls.is_some()) && !target.tls {
            return refused("there are TLS options, which need a URL that begins with `rediss`");
        }
        Ok(())
    }
}

impl Default for RedisOptions {
    fn default() -> Self {
        Self::new()
    }
}
