//! Real bus servers for tests: `redis-server` and `nats-server`, each on a loopback port of its
//! own, stopped, killed, frozen and started again at will. They end with the test, however that
//! ends.
//!
//! - [`Server`]: one server, with TLS if wanted ([`ServerTls`], [`Certificates`])
//! - [`SentinelGroup`], [`RedisCluster`], [`NatsCluster`]: several that work together
//! - [`Proxy`], [`TlsProxy`]: what is between a client and a server
//! - [`RedisClient`]: commands to a Redis server, to change it or to look into it

#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod certificates;
mod listener;
mod nats_cluster;
mod proxy;
mod redis_client;
mod redis_cluster;
mod sentinel;
mod tls;
mod tls_proxy;
mod wait;

use std::fs;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use rustix::io::retry_on_intr;
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
use tempfile::TempDir;

use wait::{now, wait_until};

pub use certificates::{Certificates, Identity, PemFile};
pub use nats_cluster::NatsCluster;
pub use proxy::Proxy;
pub use redis_client::{RedisClient, Reply};
pub use redis_cluster::{RedisCluster, RedisClusterOptions};
pub use sentinel::{SentinelGroup, SentinelOptions};
pub use tls::ServerTls;
pub use tls_proxy::TlsProxy;

/// How long a server may take to be there.
const AT_MOST: Duration = Duration::from_secs(20);

/// Which server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Redis,
    Sentinel,
    Nats,
}

/// A server that runs, unless it was stopped.
pub struct Server {
    kind: Kind,
    port: u16,
    arguments: Vec<String>,
    tls: Option<ServerTls>,
    home: TempDir,
    child: Option<Child>,
}

impl Server {
    /// A `redis-server` with these further arguments.
    ///
    /// # Panics
    ///
    /// When it cannot be started.
    pub fn redis(arguments: &[&str]) -> Self {
        Self::new(Kind::Redis, None, arguments)
    }

    /// A `redis-server` that takes TLS connections only, with these further arguments.
    ///
    /// # Panics
    ///
    /// When it cannot be started.
    pub fn redis_tls(tls: &ServerTls, arguments: &[&str]) -> Self {
        Self::new(Kind::Redis, Some(tls), arguments)
    }

    /// A `nats-server` with these further lines of configuration.
    ///
    /// # Panics
    ///
    /// When it cannot be started.
    pub fn nats(configuration: &[&str]) -> Self {
        Self::new(Kind::Nats, None, configuration)
    }

    /// A `nats-server` that requires TLS, with these further lines of configuration.
    ///
    /// # Panics
    ///
    /// When it cannot be started.
    pub fn nats_tls(tls: &ServerTls, configuration: &[&str]) -> Self {
        Self::new(Kind::Nats, Some(tls), configuration)
    }

    fn new(kind: Kind, tls: Option<&ServerTls>, arguments: &[&str]) -> Self {
        let arguments = arguments.iter().map(ToString::to_string).collect();
        let home = tempfile::tempdir().expect("a directory can be had");
        let mut server = Self { kind, port: free_port(), arguments, tls: tls.cloned(), home, child: None };
        server.start();
        server
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its URL, without credentials.
    pub fn url(&self) -> String {
        self.url_with("")
    }

    /// Its URL, with credentials: `user:password@`.
    pub fn url_with(&self, credentials: &str) -> String {
        let scheme = match (self.kind, &self.tls) {
            (Kind::Redis | Kind::Sentinel, None) => "redis",
            (Kind::Redis | Kind::Sentinel, Some(_)) => "rediss",
            (Kind::Nats, None) => "nats",
            (Kind::Nats, Some(_)) => "tls",
        };
        format!("{scheme}://{credentials}127.0.0.1:{}", self.port)
    }

    /// Starts it again, on the same port; it is there when this returns.
    ///
    /// # Panics
    ///
    /// When it cannot be started.
    pub fn start(&mut self) {
        let mut command = match self.kind {
            Kind::Redis => self.redis_command(),
            Kind::Sentinel => self.sentinel_command(),
            Kind::Nats => self.nats_command(),
        };
        let program = command.get_program().to_string_lossy().into_owned();
        let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().unwrap_or_else(|error| panic!("{program} is needed: {error}"));
        self.child = Some(child);
        // Polled, as a client would. The logs of the servers say so too, but in words that depend
        // on the version.
        let begun = now();
        while !self.answers() {
            let ended = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
            assert!(ended.is_none(), "{program} has ended by itself: {ended:?}");
            assert!(now() - begun < AT_MOST, "{program} is not there after {AT_MOST:?}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn redis_command(&self) -> Command {
        let mut command = Command::new("redis-server");
        self.add_redis_address(&mut command);
        command.args(["--save", "", "--appendonly", "no"]).args(&self.arguments);
        command
    }

    fn sentinel_command(&self) -> Command {
        // A sentinel writes what it learns into its configuration.
        let configuration = self.home.path().join("sentinel.conf");
        if !configuration.exists() {
            fs::write(&configuration, self.arguments.join("\n")).expect("a file can be written");
        }
        let mut command = Command::new("redis-server");
        command.arg(configuration).arg("--sentinel");
        self.add_redis_address(&mut command);
        command
    }

    fn add_redis_address(&self, command: &mut Command) {
        let port = self.port.to_string();
        match &self.tls {
            None => command.args(["--port", &port]),
            Some(tls) => command.args(["--port", "0", "--tls-port", &port]).args(tls.redis_arguments()),
        };
        command.args(["--bind", "127.0.0.1", "--dir"]).arg(self.home.path());
    }

    /// Replaces the arguments, or the lines of configuration: for the next start, or for a
    /// [`reload`](Self::reload).
    pub fn configure(&mut self, arguments: &[&str]) {
        self.arguments = arguments.iter().map(ToString::to_string).collect();
    }

    /// Turns TLS off, on, or to other settings: for the next start, or for a
    /// [`reload`](Self::reload).
    pub fn configure_tls(&mut self, tls: Option<&ServerTls>) {
        self.tls = tls.cloned();
    }

    /// Has a `nats-server` read its configuration again (SIGHUP), which it does soon.
    pub fn reload(&self) {
        self.write_configuration();
        self.signal("HUP");
    }

    fn write_configuration(&self) -> PathBuf {
        let configuration = self.home.path().join("nats.conf");
        let mut lines = vec!["host: 127.0.0.1".to_owned(), format!("port: {}", self.port)];
        lines.extend(self.tls.as_ref().map(ServerTls::nats_block));
        lines.extend(self.arguments.iter().cloned());
        fs::write(&configuration, lines.join("\n")).expect("a file can be written");
        configuration
    }

    fn nats_command(&self) -> Command {
        let configuration = self.write_configuration();
        // Debian installs it where only root looks.
        let installed = PathBuf::from("/usr/sbin/nats-server");
        let mut command = Command::new(if installed.exists() { installed } else { "nats-server".into() });
        command.arg("-c").arg(configuration);
        command
    }

    /// Whether it answers a client that says hello.
    fn answers(&self) -> bool {
        let Ok(mut stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)) else { return false };
        let _ = stream.set_read_timeout(Some(Duration::from_secs(1)));
        let mut answer = [0; 4];
        match self.kind {
            // An error, for want of a password or of TLS, is an answer too. With TLS it is an alert or
            // an end of the connection.
            Kind::Redis | Kind::Sentinel => {
                stream.write_all(b"PING\r\n").is_ok()
                    && match stream.read(&mut answer) {
                        Ok(n) => n > 0 || self.tls.is_some(),
                        Err(error) => self.tls.is_some() && error.kind() == ErrorKind::ConnectionReset,
                    }
            }
            Kind::Nats => stream.read_exact(&mut answer).is_ok() && &answer == b"INFO",
        }
    }

    /// Has it end by itself (SIGTERM); it has ended when this returns.
    pub fn stop(&mut self) {
        self.signal("TERM");
        self.wait();
    }

    /// Kills it (SIGKILL); it has ended when this returns.
    pub fn kill(&mut self) {
        self.signal("KILL");
        self.wait();
    }

    /// The CPU time that it has taken, where the system tells (Linux); nothing while it does not
    /// run.
    pub fn cpu_time(&self) -> Duration {
        let stats = self.of_threads("schedstat");
        Duration::from_nanos(
            stats.iter().filter_map(|stat| stat.split(' ').next()?.parse::<u64>().ok()).sum(),
        )
    }

    /// Stops it in its tracks (SIGSTOP): connections stay, and nothing answers. It has stopped when
    /// this returns.
    ///
    /// # Panics
    ///
    /// If it has ended instead.
    pub fn freeze(&self) {
        let Some(child) = &self.child else { return };
        self.signal("STOP");
        // The signal is for one thread, which stops the others once it runs: until then they go on.
        // The system tells the parent when all have stopped. It is left to `wait` to take notice of
        // an end.
        let events = WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        let event = retry_on_intr(|| waitid(WaitId::Pid(Pid::from_child(child)), events));
        assert!(event.is_ok_and(|event| event.is_some_and(|event| event.stopped())), "it has stopped");
    }

    /// What the system tells of each of its threads in a file of this name. One that is gone tells
    /// nothing.
    fn of_threads(&self, file: &str) -> Vec<String> {
        let threads =
            self.child.as_ref().and_then(|child| fs::read_dir(format!("/proc/{}/task", child.id())).ok());
        let threads = threads.into_iter().flatten().flatten();
        threads.filter_map(|thread| fs::read_to_string(thread.path().join(file)).ok()).collect()
    }

    /// Lets it go on (SIGCONT).
    pub fn thaw(&self) {
        self.signal("CONT");
    }

    /// Whether it was started, and neither stopped nor killed since.
    pub fn runs(&self) -> bool {
        self.child.is_some()
    }

    /// Has a `nats-server` leave (SIGUSR2): it tells its clients to go elsewhere, and closes them one
    /// after the other, at first after ten seconds. Then it ends:
    /// [`wait_for_end`](Self::wait_for_end).
    pub fn lame_duck(&self) {
        self.signal("USR2");
    }

    fn signal(&self, signal: &str) {
        if let Some(child) = &self.child {
            let sent = Command::new("kill").arg(format!("-{signal}")).arg(child.id().to_string()).status();
            assert!(sent.is_ok_and(|status| status.success()), "SIG{signal} could be sent");
        }
    }

    /// Waits until it ends by itself.
    ///
    /// # Panics
    ///
    /// If it has not ended after a minute.
    pub fn wait_for_end(&mut self) {
        if let Some(child) = &mut self.child {
            wait_until("the server has ended", || child.try_wait().is_ok_and(|status| status.is_some()));
            self.child = None;
        }
    }

    fn wait(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.wait();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A loopback port that nobody listens on right now.
///
/// # Panics
///
/// When there is none.
pub fn free_port() -> u16 {
    // Below the ports that systems give to outgoing connections, so that none of those takes it
    // before the server listens.
    let random = || RandomState::new().build_hasher().finish();
    let mut ports = (0..1000).map(|_| 10_000 + (random() % 20_000) as u16);
    let is_free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    ports.find(is_free).expect("a port can be had")
}
