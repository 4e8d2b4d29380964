//! Options of the bus and their defaults.

use std::collections::BTreeSet;
use std::time::Duration;

use async_nats::ConnectOptions;
use psrpc::proto::{Compression, FrameLimits};
#[cfg(feature = "tls")]
use psrpc_bus_net::TlsOptions;
use psrpc_bus_net::{Provider, ProviderError};

use crate::credentials::Credentials;
#[cfg(feature = "tls")]
use crate::error::{ConnectError, UrlProblem};
use crate::url::Servers;

/// Options of a [`NatsBus`](crate::NatsBus).
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
    pub(crate) credentials: Option<Provider<Credentials>>,
    #[cfg(feature = "tls")]
    pub(crate) tls: Option<Provider<TlsOptions>>,
    pub(crate) tls_first: bool,
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
            credentials: None,
            #[cfg(feature = "tls")]
            tls: None,
            tls_first: false,
        }
    }
}

impl NatsOptions {
    /// Returns the default options.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the name of the connection in the server's monitoring. Default: `psrpc`.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Sets the prefix of the inbox subjects of the bus. The user must be allowed to publish and
    /// subscribe to `<prefix>.>`. Default: `_INBOX`.
    #[must_use]
    pub fn inbox_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.inbox_prefix = prefix.into();
        self
    }

    /// Sets the maximum size of the frames waiting to be published, in bytes. One frame may exceed
    /// it. Default: 8 MiB.
    #[must_use]
    pub fn queue_bytes(mut self, bytes: usize) -> Self {
        self.queue_bytes = bytes;
        self
    }

    /// Sets the timeout of one attempt to connect to a server. Default: 2 s.
    #[must_use]
    pub fn connection_timeout(mut self, timeout: Duration) -> Self {
        self.connection_timeout = timeout;
        self
    }

    /// Sets the maximum delay between two attempts to reconnect. Default: 1 s.
    ///
    /// The first delay is 10 ms, and each later one is four times as long, minus a random part of
    /// up to one half. The number of attempts is not limited.
    #[must_use]
    pub fn reconnect_delay(mut self, longest: Duration) -> Self {
        self.reconnect_delay = longest;
        self
    }

    /// Sets how often the bus pings an idle server. The connection is lost after two pings without
    /// a response. Default: 10 s.
    #[must_use]
    pub fn ping_interval(mut self, interval: Duration) -> Self {
        self.ping_interval = interval;
        self
    }

    /// Sets the limits for decoding frames. Frames beyond a limit are delivered undecoded. Default:
    /// [`FrameLimits::DEFAULT`].
    #[must_use]
    pub fn frame_limits(mut self, limits: FrameLimits) -> Self {
        self.frame_limits = limits;
        self
    }

    /// Compresses published frames whose size reaches a [threshold](Compression::threshold).
    /// Default: no compression.
    ///
    /// All peers must support compression: Go peers since v0.7.6, and all versions of this crate.
    /// The server's `max_payload` applies to the compressed frame. The bus always accepts
    /// compressed frames.
    #[must_use]
    pub fn compression(mut self, compression: Compression) -> Self {
        self.compression = Some(compression);
        self
    }

    /// Sets whether connecting retries until a server accepts the bus, instead of returning the
    /// first error. Default: `false`.
    ///
    /// Dropping the future cancels the attempts.
    #[must_use]
    pub fn wait_for_server(mut self, wait: bool) -> Self {
        self.wait_for_server = wait;
        self
    }

    /// Gives the queue subscriptions to the updates of a method their own queue group. Default: no
    /// method.
    ///
    /// `service` and `method` are the names used in the channels. Without this option, all queue
    /// subscriptions of a service share one queue group: the servers of its queue-routed methods
    /// and the subscribers to its updates [take messages from each
    /// other](crate#updates-and-requests).
    ///
    /// Set the option on every bus of the fleet. Use it only for updates that no Go client
    /// subscribes to: Go clients stay in the shared group, so each update would be handled twice.
    #[must_use]
    pub fn separate_updates(mut self, service: impl Into<String>, method: impl Into<String>) -> Self {
        self.separate_updates.insert((service.into(), method.into()));
        self
    }

    /// Sets a function that returns the credentials, in place of those in the URLs. Default: none.
    ///
    /// The bus calls it for each connection, so new credentials take effect when the bus
    /// reconnects. The function runs in a task of the bus: it may read small files, but must not
    /// block for long. If it returns an error, the attempt to connect fails, and the text of the
    /// error becomes part of the cause.
    #[must_use]
    pub fn credentials<E: Into<ProviderError>>(
        mut self,
        provider: impl Fn() -> Result<Credentials, E> + Send + Sync + 'static,
    ) -> Self {
        self.credentials = Some(Provider::new("credentials", provider));
        self
    }

    /// Reads the credentials from a credentials file (`*.creds`, a JWT and a seed) for each
    /// connection. Default: none.
    ///
    /// This sets the function of [`credentials`](Self::credentials).
    #[cfg(feature = "nkeys")]
    #[must_use]
    pub fn credentials_file(self, path: impl Into<std::path::PathBuf>) -> Self {
        let path = path.into();
        self.credentials(move || {
            let content = std::fs::read_to_string(&path).map_err(ProviderError::from);
            let credentials = content.and_then(|content| Ok(Credentials::from_creds(&content)?));
            credentials.map_err(|error| format!("{}: {error}", path.display()))
        })
    }

    /// Sets a function that returns the TLS options for `tls://` URLs. Default:
    /// [`TlsOptions::new`].
    ///
    /// The bus calls it for each connection, like that of [`credentials`](Self::credentials), so
    /// certificates can be replaced while the bus runs.
    ///
    /// ```no_run
    /// use std::fs;
    /// use psrpc_bus_nats::{NatsOptions, TlsOptions};
    ///
    /// let options = NatsOptions::new().tls(|| -> std::io::Result<_> {
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

    /// Sets whether connections begin with the TLS handshake, as servers with `handshake_first`
    /// require (nats-server 2.10 and later). Default: `false`, so the server speaks first, in plain
    /// text.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls_first(mut self, first: bool) -> Self {
        self.tls_first = first;
        self
    }

    /// Refuses TLS options for servers without TLS.
    #[cfg(feature = "tls")]
    pub(crate) fn check(&self, servers: &Servers) -> Result<(), ConnectError> {
        if (self.tls.is_some() || self.tls_first) && !servers.tls {
            return Err(ConnectError::Url { number: 1, problem: UrlProblem::TlsOptions });
        }
        Ok(())
    }

    /// Applies the options to those of the client library, for one connection. Returns the cause if
    /// there are no credentials or the TLS options are invalid.
    pub(crate) fn apply(&self, client: ConnectOptions, servers: &Servers) -> Result<ConnectOptions, String> {
        let credentials = match &self.credentials {
            Some(provider) => Some(provider.provide()?),
            None => servers.credentials.clone(),
        };
        let client = match credentials {
            Some(credentials) => credentials.apply(client),
            None => client,
        };
        #[cfg(feature = "tls")]
        let client = if servers.tls { self.apply_tls(client)? } else { client };
        Ok(client
            .name(&self.name)
            .custom_inbox_prefix(&self.inbox_prefix)
            .connection_timeout(self.connection_timeout)
            .ping_interval(self.ping_interval))
    }

    #[cfg(feature = "tls")]
    fn apply_tls(&self, client: ConnectOptions) -> Result<ConnectOptions, String> {
        let options = self.tls.as_ref().map(Provider::provide).transpose()?.unwrap_or_default();
        let client = client.tls_client_config(options.config()?).require_tls(true);
        Ok(if self.tls_first { client.tls_first() } else { client })
    }
}
