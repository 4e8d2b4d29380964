//! The target of a bus: a server, the master that sentinels name, or a cluster.

use redis::{ConnectionAddr, ConnectionInfo, ProtocolVersion};

/// The servers that the bus connects to.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) kind: TargetKind,
    /// The addresses of the server, of the sentinels, or of some nodes of the cluster: at least
    /// one.
    pub(crate) addresses: Vec<ConnectionAddr>,
    /// The settings of all connections, with the credentials of the server.
    pub(crate) settings: ConnectionInfo,
    /// Whether the bus performs a TLS handshake after it has connected to an address.
    pub(crate) tls: bool,
}

/// The kind of a server or of a group of servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TargetKind {
    Server,
    Sentinel {
        /// The name of the master at the sentinels.
        master: String,
    },
    Cluster,
}

impl Target {
    /// Returns a target with these addresses. Overrides the settings on which the bus depends.
    pub(crate) fn new(
        kind: TargetKind,
        addresses: Vec<ConnectionAddr>,
        settings: &ConnectionInfo,
        tls: bool,
    ) -> Self {
        // The server pushes messages between replies, which RESP2 does not support.
        let redis = settings.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        let tcp = settings.tcp_settings().clone().set_nodelay(true);
        let settings = settings.clone().set_redis_settings(redis).set_tcp_settings(tcp);
        Self { kind, addresses, settings, tls }
    }

    /// Returns a target with the one server that these settings name.
    pub(crate) fn server(settings: &ConnectionInfo, tls: bool) -> Self {
        Self::new(TargetKind::Server, vec![settings.addr().clone()], settings, tls)
    }

    pub(crate) fn is_cluster(&self) -> bool {
        self.kind == TargetKind::Cluster
    }

    /// Returns the addresses as they are shown in errors.
    pub(crate) fn names(&self) -> String {
        let names: Vec<_> = self.addresses.iter().map(ToString::to_string).collect();
        names.join(",")
    }
}
