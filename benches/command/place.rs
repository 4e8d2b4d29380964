//! Where it is measured: a bus, and its server.

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

/// Which bus it is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Local,
    Redis,
    Nats,
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
        let of = |kind, server: Server| Self { kind, url: server.url(), server: Some(server) };
        Ok(match asked {
            Asked::Local => Self { kind: Kind::Local, url: String::new(), server: None },
            Asked::Redis => of(Kind::Redis, Server::redis(&[])),
            Asked::Nats => of(Kind::Nats, Server::nats(&[])),
            Asked::Url(url) => {
                let kind = if url.starts_with("redis:") { Kind::Redis } else { Kind::Nats };
                Self { kind, url: url.clone(), server: None }
            }
        })
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
        match self.kind {
            Kind::Local => "local",
            Kind::Redis => "redis",
            Kind::Nats => "nats",
        }
    }

    /// So many buses as as many processes would have: each with connections of its own where there are any.
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
