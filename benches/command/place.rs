//! Where it is measured: a bus, and its server.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use psrpc::bus::Bus;
use psrpc_bus_local::LocalBus;
use psrpc_servers::Server;

use crate::Fault;

/// A bus as it is asked for.
#[derive(Clone)]
pub(crate) enum Asked {
    Local,
    Redis,
    Nats,
    /// A server that runs.
    Url(String),
}

impl FromStr for Asked {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "local" | "local:" => Ok(Self::Local),
            "redis" => Ok(Self::Redis),
            "nats" => Ok(Self::Nats),
            _ if text.starts_with("redis://") || text.starts_with("nats://") => {
                Ok(Self::Url(text.to_owned()))
            }
            _ => Err("there are local, redis, nats, and URLs that begin with redis:// or nats://".to_owned()),
        }
    }
}

impl Asked {
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

/// Writes it as it is asked for on the command line.
impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(url) => f.write_str(url),
            known => f.write_str(known.kind().name()),
        }
    }
}

/// Which bus it is.
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

/// A bus that is there.
pub(crate) struct Place {
    pub(crate) kind: Kind,
    /// Of what is not in process.
    pub(crate) url: String,
    /// It ends with this.
    server: Option<Server>,
}

impl Place {
    /// The bus that was asked for, with a server of its own unless there is one.
    pub(crate) fn open(asked: &Asked) -> Result<Self, Fault> {
        let server = match asked {
            Asked::Redis => Some(Server::redis(&[])),
            Asked::Nats => Some(Server::nats(&[])),
            Asked::Local | Asked::Url(_) => None,
        };
        let url = match asked {
            Asked::Url(url) => url.clone(),
            _ => server.as_ref().map(Server::url).unwrap_or_default(),
        };
        Ok(Self { kind: asked.kind(), url, server })
    }

    /// Kills its server and starts it again, if it has one.
    pub(crate) fn restart(&mut self) {
        if let Some(server) = &mut self.server {
            server.kill();
            server.start();
        }
    }

    /// The CPU time that its server has taken, if it has one.
    pub(crate) fn server_cpu(&self) -> Option<Duration> {
        self.server.as_ref().map(Server::cpu_time)
    }

    pub(crate) fn name(&self) -> &'static str {
        self.kind.name()
    }

    /// So many buses as as many processes would have: each with connections of its own where there
    /// are any.
    pub(crate) async fn connect(&self, count: usize) -> Result<Vec<Arc<dyn Bus>>, Fault> {
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
