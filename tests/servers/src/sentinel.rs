//! A Redis master with two replicas, watched by three sentinels.

use std::io;

use crate::redis_client::{RedisClient, Reply};
use crate::tls::ServerTls;
use crate::wait::wait_until;
use crate::{Kind, Server};

/// The name of the master at the sentinels.
const NAME: &str = "hats";
const SERVERS: usize = 3;
const SENTINELS: usize = 3;

/// The intervals of the sentinels, in milliseconds. With the default intervals, it takes ten
/// seconds until a replica is found. The tilt period is the pause of a sentinel after its clock or
/// process stood still. It is short, since the machine of the tests may be busy.
const PERIODS: [&str; 10] = [
    "info-period",
    "500",
    "publish-period",
    "500",
    "ask-period",
    "200",
    "ping-period",
    "200",
    "tilt-period",
    "1000",
];

/// Passwords and TLS of a [`SentinelGroup`]. By default there are none.
#[derive(Clone, Default)]
pub struct SentinelOptions {
    /// The password of the master and the replicas.
    pub password: Option<String>,
    /// The password of the sentinels.
    pub sentinel_password: Option<String>,
    /// TLS of all of them.
    pub tls: Option<ServerTls>,
}

/// A master, two replicas and three sentinels, of which two must agree that the master is down. A
/// sentinel considers it down after a second without a response. On a busy machine that can happen
/// to a master that works.
pub struct SentinelGroup {
    servers: Vec<Server>,
    sentinels: Vec<Server>,
    options: SentinelOptions,
}

impl SentinelGroup {
    /// Starts the servers, the first of them as the master. All know each other when this returns.
    ///
    /// # Panics
    ///
    /// Panics if one cannot be started, or if they do not find each other.
    pub fn new(options: &SentinelOptions) -> Self {
        let mut group = Self { servers: Vec::new(), sentinels: Vec::new(), options: options.clone() };
        for _ in 0..SERVERS {
            group.servers.push(group.new_server());
        }
        for _ in 0..SENTINELS {
            group.sentinels.push(group.new_sentinel());
        }
        group.wait_until_ready();
        group
    }

    fn new_server(&self) -> Server {
        let mut arguments = vec!["--repl-diskless-sync-delay", "0"];
        if let Some(password) = &self.options.password {
            arguments.extend(["--requirepass", password, "--masterauth", password]);
        }
        let master = self.servers.first().map(|master| master.port().to_string());
        if let Some(port) = &master {
            arguments.extend(["--replicaof", "127.0.0.1", port]);
        }
        Server::new(Kind::Redis, self.options.tls.as_ref(), &arguments)
    }

    fn new_sentinel(&self) -> Server {
        let mut lines = vec![
            format!("sentinel monitor {NAME} 127.0.0.1 {} 2", self.servers[0].port()),
            format!("sentinel down-after-milliseconds {NAME} 1000"),
            format!("sentinel failover-timeout {NAME} 3000"),
        ];
        if let Some(password) = &self.options.password {
            lines.push(format!("sentinel auth-pass {NAME} {password}"));
        }
        if let Some(password) = &self.options.sentinel_password {
            lines.push(format!("requirepass {password}"));
            lines.push(format!("sentinel sentinel-pass {password}"));
        }
        let lines: Vec<_> = lines.iter().map(String::as_str).collect();
        Server::new(Kind::Sentinel, self.options.tls.as_ref(), &lines)
    }

    /// Shortens the intervals of a sentinel. The setting is lost when the sentinel ends.
    fn hurry(&self, sentinel: usize) {
        let words: Vec<_> = ["sentinel", "debug"].into_iter().chain(PERIODS).collect();
        self.ask_sentinel(sentinel, &words).expect("a sentinel takes intervals");
    }

    /// Returns the URL of the group, without credentials:
    /// `redis+sentinel://host:port,host:port,host:port/NAME`, or `rediss+sentinel://` with TLS.
    pub fn url(&self) -> String {
        self.url_with("")
    }

    /// Returns the URL of the group with credentials: `user:password@`.
    pub fn url_with(&self, credentials: &str) -> String {
        let scheme = if self.options.tls.is_some() { "rediss" } else { "redis" };
        let hosts: Vec<_> = self.sentinels.iter().map(|at| format!("127.0.0.1:{}", at.port())).collect();
        format!("{scheme}+sentinel://{credentials}{}/{NAME}", hosts.join(","))
    }

    /// Returns the name of the master at the sentinels.
    pub fn name(&self) -> &str {
        NAME
    }

    /// Returns the number of the server that is the master, from 0 to 2, in the view of the first
    /// sentinel that runs.
    ///
    /// # Panics
    ///
    /// Panics if no sentinel runs.
    pub fn master(&self) -> usize {
        self.running_sentinels().find_map(|sentinel| self.master_of(sentinel)).expect("a sentinel runs")
    }

    /// Returns the server of this number: the master, or a replica. You can stop, kill, freeze and
    /// start it. A killed master that starts again is a master and accepts writes until the
    /// sentinels make it a replica of the new one, some seconds later.
    pub fn server(&mut self, number: usize) -> &mut Server {
        &mut self.servers[number]
    }

    /// Returns the sentinel of this number, from 0 to 2.
    pub fn sentinel(&mut self, number: usize) -> &mut Server {
        &mut self.sentinels[number]
    }

    /// Connects to the server of this number.
    ///
    /// # Errors
    ///
    /// Returns an error if it cannot be reached.
    pub fn client(&self, number: usize) -> io::Result<RedisClient> {
        let options = &self.options;
        RedisClient::connect(self.servers[number].port(), options.tls.as_ref(), options.password.as_deref())
    }

    /// Makes the sentinels promote a replica although the master works. Returns the number of the
    /// new master.
    ///
    /// # Panics
    ///
    /// Panics if there is no new master in time.
    pub fn failover(&self) -> usize {
        let old = self.master();
        // Refused while the last failover is not over.
        wait_until("a sentinel agrees to a failover", || {
            let mut sentinels = self.running_sentinels();
            sentinels.any(|sentinel| self.ask_sentinel(sentinel, &["sentinel", "failover", NAME]).is_ok())
        });
        self.wait_for_new_master(old)
    }

    /// Waits until all running sentinels agree on a master other than this server, and that master
    /// has taken its role. Returns its number.
    ///
    /// # Panics
    ///
    /// Panics if that takes too long.
    pub fn wait_for_new_master(&self, old: usize) -> usize {
        let mut new = old;
        wait_until("a new master is elected", || {
            let mut masters = self.running_sentinels().map(|sentinel| self.master_of(sentinel));
            let Some(Some(first)) = masters.next() else { return false };
            new = first;
            first != old && masters.all(|master| master == Some(first)) && self.has_role(first, "master")
        });
        new
    }

    /// Waits until every sentinel knows the others, the master and two replicas that follow it. All
    /// servers must run.
    ///
    /// # Panics
    ///
    /// Panics if that takes too long.
    pub fn wait_until_ready(&self) {
        for sentinel in 0..SENTINELS {
            self.hurry(sentinel);
        }
        for sentinel in 0..SENTINELS {
            wait_until(&format!("sentinel {sentinel} knows all"), || self.knows_all(sentinel));
        }
        let master = self.master();
        for replica in (0..SERVERS).filter(|server| *server != master) {
            wait_until(&format!("server {replica} is a replica"), || self.has_role(replica, "slave"));
        }
    }

    fn knows_all(&self, sentinel: usize) -> bool {
        let Ok(master) = self.ask_sentinel(sentinel, &["sentinel", "master", NAME]) else { return false };
        let has = |name: &str, value: &str| master.field(name).is_some_and(|field| field == value);
        let counted = has("flags", "master") && has("num-slaves", "2") && has("num-other-sentinels", "2");
        let replicas = self.ask_sentinel(sentinel, &["sentinel", "replicas", NAME]);
        counted
            && replicas.is_ok_and(|replicas| {
                let follows = |replica: &Reply| {
                    replica.field("flags").as_deref() == Some("slave")
                        && replica.field("master-link-status").as_deref() == Some("ok")
                };
                replicas.items().iter().all(follows)
            })
    }

    fn has_role(&self, server: usize, role: &str) -> bool {
        let reply = self.client(server).and_then(|mut client| client.command(&["role"]));
        reply.is_ok_and(|reply| reply.items().first() == Some(&Reply::Text(role.to_owned())))
    }

    fn master_of(&self, sentinel: usize) -> Option<usize> {
        let address = self.ask_sentinel(sentinel, &["sentinel", "get-master-addr-by-name", NAME]).ok()?;
        let port = address.items().get(1)?.to_string();
        self.servers.iter().position(|server| server.port().to_string() == port)
    }

    fn running_sentinels(&self) -> impl Iterator<Item = usize> {
        (0..SENTINELS).filter(|sentinel| self.sentinels[*sentinel].runs())
    }

    fn ask_sentinel(&self, sentinel: usize, words: &[&str]) -> io::Result<Reply> {
        let options = &self.options;
        let port = self.sentinels[sentinel].port();
        RedisClient::connect(port, options.tls.as_ref(), options.sentinel_password.as_deref())?.command(words)
    }
}
