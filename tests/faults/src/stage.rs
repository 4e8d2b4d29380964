//! The running servers of a set-up, and the buses that connect to them.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use psrpc::{Error, Runtime, bus::Bus};
use psrpc_bus_nats::{Credentials as NatsCredentials, NatsBus, NatsOptions, TlsOptions as NatsTls};
use psrpc_bus_redis::{Credentials as RedisCredentials, RedisBus, RedisOptions, TlsOptions as RedisTls};
use psrpc_servers::{
    Certificates, NatsCluster, Proxy, RedisClient, RedisCluster, RedisClusterOptions, SentinelGroup,
    SentinelOptions, Server, ServerTls,
};
use tempfile::TempDir;

use crate::breakable_bus::BreakableServer;
use crate::setup::SetUp;

/// The user that the buses log in as, where there is one server.
pub const USER: &str = "hatter";

/// The password of the user in the beginning.
pub const PASSWORD: &str = "s3cret-fedora";

/// The interval at which a bus pings a NATS server, so that a frozen one is noticed within a test.
const PING_INTERVAL: Duration = Duration::from_secs(1);

/// The number of masters of a Redis Cluster, which come before their replicas.
pub const MASTERS: usize = 3;

/// The interval between attempts to reach a server that is not back yet.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// The servers of a case, and the means to break and repair them.
pub struct Stage {
    set_up: SetUp,
    servers: Servers,
    /// The proxy between the buses and the server, for faults of the network.
    proxy: Option<Proxy>,
    tls: Option<ServerTls>,
    /// The password that the buses use, which a fault may change while they run.
    password: Arc<Mutex<String>>,
    directory: TempDir,
    /// The index of the server that a fault has killed or frozen.
    pub lost: usize,
}

/// The servers of a set-up.
enum Servers {
    Local(BreakableServer),
    One(Server),
    Sentinel(SentinelGroup),
    Cluster(RedisCluster),
    Nats(NatsCluster),
}

impl Stage {
    /// Starts the servers, with a proxy before them if there is one server and `with_proxy` is set.
    ///
    /// # Panics
    ///
    /// Panics if a server cannot be started.
    pub fn start(set_up: SetUp, with_proxy: bool) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let certificates = || ServerTls::new(&Certificates::new()).require_client_certificate();
        let tls = matches!(set_up, SetUp::RedisTls | SetUp::NatsTls).then(certificates);
        let socket = directory.path().join("redis.sock").display().to_string();
        let user = redis_user(PASSWORD);
        let redis: Vec<_> = ["--unixsocket", &socket, "--user"].into_iter().chain(user.split(' ')).collect();
        let nats = nats_user(PASSWORD, "");
        let servers = match (set_up, &tls) {
            (SetUp::Local, _) => Servers::Local(BreakableServer::default()),
            (SetUp::RedisTls, Some(tls)) => Servers::One(Server::redis_tls(tls, &redis)),
            (SetUp::Redis | SetUp::RedisUnix | SetUp::RedisTls, _) => Servers::One(Server::redis(&redis)),
            (SetUp::NatsTls, Some(tls)) => Servers::One(Server::nats_tls(tls, &[&nats])),
            (SetUp::Nats | SetUp::NatsTls, _) => Servers::One(Server::nats(&[&nats])),
            (SetUp::RedisSentinel, _) => Servers::Sentinel(SentinelGroup::new(&SentinelOptions::default())),
            (SetUp::RedisCluster, _) => {
                let options = RedisClusterOptions { replicas: true, ..RedisClusterOptions::default() };
                Servers::Cluster(RedisCluster::new(&options))
            }
            (SetUp::NatsCluster, _) => Servers::Nats(NatsCluster::new(None, &[])),
        };
        let proxy = match &servers {
            Servers::One(server) if with_proxy => Some(Proxy::new(server.port())),
            _ => None,
        };
        let password = Arc::new(Mutex::new(PASSWORD.to_owned()));
        Self { set_up, servers, proxy, tls, password, directory, lost: 0 }
    }

    /// Returns the set-up.
    pub fn set_up(&self) -> SetUp {
        self.set_up
    }

    // --- buses -----------------------------------------------------------------------------------

    /// Connects the bus of this number. The buses spread over the servers of a cluster.
    ///
    /// # Errors
    ///
    /// Returns the error of the bus.
    pub fn connect(
        &self,
        number: usize,
        runtime: &Arc<dyn Runtime>,
    ) -> impl Future<Output = Result<Arc<dyn Bus>, Error>> + Send + use<> {
        let (url, set_up, runtime) = (self.url(number), self.set_up, Arc::clone(runtime));
        let local = match &self.servers {
            Servers::Local(server) => Some(server.clone()),
            _ => None,
        };
        let (redis, nats) = (self.redis_options(), self.nats_options());
        async move {
            if let Some(server) = local {
                return Ok(Arc::new(server.connect(runtime)) as Arc<dyn Bus>);
            }
            Ok(match set_up {
                SetUp::Nats | SetUp::NatsTls | SetUp::NatsCluster => {
                    Arc::new(NatsBus::connect_with(&url, runtime, nats).await?) as Arc<dyn Bus>
                }
                _ => Arc::new(RedisBus::connect_with(&url, runtime, redis).await?),
            })
        }
    }

    fn url(&self, number: usize) -> String {
        let through = |server: &Server, proxy: &Option<Proxy>| match proxy {
            Some(proxy) => server.url().replace(&server.port().to_string(), &proxy.port().to_string()),
            None => server.url(),
        };
        match &self.servers {
            Servers::Local(_) => "local:".to_owned(),
            Servers::One(_) if self.set_up == SetUp::RedisUnix => {
                format!("redis+unix://{}", self.directory.path().join("redis.sock").display())
            }
            Servers::One(server) => through(server, &self.proxy),
            Servers::Sentinel(group) => group.url(),
            Servers::Cluster(cluster) => {
                let url = cluster.url();
                let (scheme, hosts) = url.split_once("://").expect("a URL has a scheme");
                let masters: Vec<_> = hosts.split(',').take(MASTERS).collect();
                format!("{scheme}://{}", rotated(&masters.join(","), number))
            }
            Servers::Nats(cluster) => rotated(&cluster.url(), number),
        }
    }

    fn redis_options(&self) -> RedisOptions {
        let options = RedisOptions::new();
        let options = match &self.servers {
            Servers::One(_) => {
                let password = Arc::clone(&self.password);
                options.credentials(move || -> Result<_, String> {
                    let password = password.lock().unwrap_or_else(PoisonError::into_inner).clone();
                    Ok(RedisCredentials::new(USER, password))
                })
            }
            _ => options,
        };
        match self.tls.clone() {
            Some(tls) => options.tls(move || -> Result<_, String> {
                let (ca, client) = (tls.certificates().authority(), tls.certificates().client());
                Ok(RedisTls::new()
                    .ca(ca.pem())
                    .client_certificate(client.certificate().pem(), client.key().pem()))
            }),
            None => options,
        }
    }

    fn nats_options(&self) -> NatsOptions {
        let options = NatsOptions::new().ping_interval(PING_INTERVAL);
        let options = match &self.servers {
            Servers::One(_) => {
                let password = Arc::clone(&self.password);
                options.credentials(move || -> Result<_, String> {
                    let password = password.lock().unwrap_or_else(PoisonError::into_inner).clone();
                    Ok(NatsCredentials::user(USER, password))
                })
            }
            _ => options,
        };
        match self.tls.clone() {
            Some(tls) => options.tls(move || -> Result<_, String> {
                let (ca, client) = (tls.certificates().authority(), tls.certificates().client());
                Ok(NatsTls::new()
                    .ca(ca.pem())
                    .client_certificate(client.certificate().pem(), client.key().pem()))
            }),
            None => options,
        }
    }

    /// Changes the password that the buses use from their next connection on.
    pub fn use_password(&self, password: &str) {
        password.clone_into(&mut self.password.lock().unwrap_or_else(PoisonError::into_inner));
    }

    // --- servers ---------------------------------------------------------------------------------

    /// Returns the in-process server.
    ///
    /// # Panics
    ///
    /// Panics on any other set-up.
    pub fn local(&self) -> &BreakableServer {
        match &self.servers {
            Servers::Local(server) => server,
            _ => panic!("{}: not an in-process bus", self.set_up.as_str()),
        }
    }

    /// Returns the only server.
    ///
    /// # Panics
    ///
    /// Panics if the set-up has no server or several.
    pub fn server(&mut self) -> &mut Server {
        match &mut self.servers {
            Servers::One(server) => server,
            _ => panic!("{}: not one server", self.set_up.as_str()),
        }
    }

    /// Returns the master with its sentinels.
    ///
    /// # Panics
    ///
    /// Panics if there are none.
    pub fn sentinel(&mut self) -> &mut SentinelGroup {
        match &mut self.servers {
            Servers::Sentinel(group) => group,
            _ => panic!("{}: no sentinels", self.set_up.as_str()),
        }
    }

    /// Returns the Redis Cluster.
    ///
    /// # Panics
    ///
    /// Panics if there is none.
    pub fn redis_cluster(&mut self) -> &mut RedisCluster {
        match &mut self.servers {
            Servers::Cluster(cluster) => cluster,
            _ => panic!("{}: not a Redis Cluster", self.set_up.as_str()),
        }
    }

    /// Returns the NATS cluster.
    ///
    /// # Panics
    ///
    /// Panics if there is none.
    pub fn nats_cluster(&mut self) -> &mut NatsCluster {
        match &mut self.servers {
            Servers::Nats(cluster) => cluster,
            _ => panic!("{}: not a NATS cluster", self.set_up.as_str()),
        }
    }

    /// Returns the proxy.
    ///
    /// # Panics
    ///
    /// Panics if there is none.
    pub fn proxy(&self) -> &Proxy {
        self.proxy.as_ref().expect("faults of the network run behind a proxy")
    }

    /// Sends a command to the only Redis server, as its administrator.
    ///
    /// # Panics
    ///
    /// Panics if the set-up does not have exactly one server, or if the server refuses the command.
    pub fn redis(&self, command: &[&str]) {
        let Servers::One(server) = &self.servers else { panic!("not one server") };
        let client = RedisClient::connect(server.port(), self.tls.as_ref(), None);
        let reply = client.and_then(|mut client| client.command(command));
        reply.unwrap_or_else(|error| panic!("{}: {error}", command.join(" ")));
    }

    /// Waits until the only server answers the test's own client. Returns at once if the set-up
    /// does not have exactly one server.
    ///
    /// # Panics
    ///
    /// Panics if 4000 attempts fail, which take at least 20 s.
    pub fn wait_until_back(&self) {
        let Servers::One(server) = &self.servers else { return };
        for _ in 0..4000 {
            let is_back = match self.set_up {
                SetUp::Nats | SetUp::NatsTls => greets(server.port()),
                _ => RedisClient::connect(server.port(), self.tls.as_ref(), None)
                    .and_then(|mut client| client.command(&["PING"]))
                    .is_ok(),
            };
            if is_back {
                return;
            }
            thread::sleep(POLL_INTERVAL);
        }
        panic!("the server is not back after 20 s");
    }
}

/// Rotates a comma-separated list by `number` items.
fn rotated(list: &str, number: usize) -> String {
    let mut items: Vec<_> = list.split(',').collect();
    let first = number % items.len();
    items.rotate_left(first);
    items.join(",")
}

/// Returns `true` if a NATS server greets a new connection.
fn greets(port: u16) -> bool {
    let Ok(stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) else { return false };
    let _ = stream.set_read_timeout(Some(Duration::from_secs(1)));
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).is_ok() && line.starts_with("INFO ")
}

/// Returns the ACL rule for [`USER`] on a Redis server.
pub fn redis_user(password: &str) -> String {
    format!("{USER} on >{password} ~* &* +@all")
}

/// Returns the configuration of a NATS server. It contains [`USER`], a limit for the pending bytes
/// of a client, and a quick lame duck mode.
pub fn nats_user(password: &str, permissions: &str) -> String {
    let limits = "max_pending: 2MB\nlame_duck_grace_period: 1s\nlame_duck_duration: 30s";
    let user = format!("user: {USER}, password: \"{password}\"{permissions}");
    format!("{limits}\nauthorization {{ users = [{{ {user} }}] }}")
}
