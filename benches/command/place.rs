//! Buses to measure on, and their servers.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use psrpc::bus::Bus;
use psrpc_bus_local::LocalBus;
use psrpc_servers::Server;

use crate::BenchError;

/// A bus given on the command line.
#[derive(Clone)]
pub(crate) enum BusArgument {
    Local,
    Redis,
    Nats,
    /// A running server.
    Url(String),
}

impl FromStr for BusArgument {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "local" | "local:" => Ok(Self::Local),
            "redis" => Ok(Self::Redis),
            "nats" => Ok(Self::Nats),
            _ if text.starts_with("redis://") || text.starts_with("nats://") => {
                Ok(Self::Url(text.to_owned()))
            }
            _ => Err("expected local, redis, nats, or a URL that begins with redis:// or nats://".to_owned()),
        }
    }
}

impl BusArgument {
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Local => Kind::Local,
            Self::Redis => Kind::Redis,
            Self::Nats => Kind::Nats,
            Self::Url(url) if url.starts_with("redis:") => Kind::Redis,
            Self::Url(_) => Kind::Nats,
        }
    }
}

/// Formats it as on the command line.
impl fmt::Display for BusArgument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(url) => f.write_str(url),
            known => f.write_str(known.kind().name()),
        }
    }
}

/// The kind of a bus.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Local,
    Redis,
    Nats,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Redis => "redis",
            Self::Nats => "nats",
        }
    }
}

/// An open bus.
pub(crate) struct Place {
    pub(crate) kind: Kind,
    /// The URL; empty for the in-process bus.
    pub(crate) url: String,
    /// The server, if this command started it. Dropping it stops the server.
    server: Option<Server>,
}

impl Place {
    /// Opens a bus. Starts a server for it unless a URL was given.
    pub(crate) fn open(argument: &BusArgument) -> Result<Self, BenchError> {
        let server = match argument {
            BusArgument::Redis => Some(Server::redis(&[])),
            BusArgument::Nats => Some(Server::nats(&[])),
            BusArgument::Local | BusArgument::Url(_) => None,
        };
        let url = match argument {
            BusArgument::Url(url) => url.clone(),
            _ => server.as_ref().map(Server::url).unwrap_or_default(),
        };
        Ok(Self { kind: argument.kind(), url, server })
    }

    /// Kills and restarts the server, if this command started it.
    pub(crate) fn restart(&mut self) {
        if let Some(server) = &mut self.server {
            server.kill();
            server.start();
        }
    }

    /// Returns the CPU time that the server has used, if this command started it.
    pub(crate) fn server_cpu(&self) -> Option<Duration> {
        self.server.as_ref().map(Server::cpu_time)
    }

    pub(crate) fn name(&self) -> &'static str {
        self.kind.name()
    }

    /// Opens `count` buses as separate processes would: each with its own connections, except for
    /// the in-process bus.
    pub(crate) async fn connect(&self, count: usize) -> Result<Vec<Arc<dyn Bus>>, BenchError> {
        if self.kind == Kind::Local {
            let bus: Arc<dyn Bus> = Arc::new(LocalBus::new());
            return Ok(vec![bus; count]);
        }
        let mut buses = Vec::new();
        for _ in 0..count {
            buses.push(psrpc_bus_url::connect(&self.url, psrpc_tokio::default_runtime()?).await?);
        }
        Ok(buses)
    }
}
