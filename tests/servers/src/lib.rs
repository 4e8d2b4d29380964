//! Real bus servers for tests: `redis-server` and `nats-server`, each on a free loopback port.
//! Tests can stop, kill, freeze and restart them. They end when the test ends, even if it panics.
//!
//! - [`Server`]: a single server, with optional TLS ([`ServerTls`], [`Certificates`])
//! - [`SentinelGroup`], [`RedisCluster`], [`NatsCluster`]: groups of servers
//! - [`Proxy`], [`TlsProxy`]: a plain proxy and one that terminates TLS
//! - [`RedisClient`]: a minimal client for setup and inspection

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

/// The time limit for a server to start.
const START_TIMEOUT: Duration = Duration::from_secs(20);

/// The kind of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Redis,
    Sentinel,
    Nats,
}

/// A running or stopped server. Dropping it kills the server.
pub struct Server {
    kind: Kind,
    port: u16,
    arguments: Vec<String>,
    tls: Option<ServerTls>,
    home: TempDir,
    child: Option<Child>,
}

impl Server {
    /// Starts a `redis-server` with additional arguments.
    ///
    /// # Panics
    ///
    /// Panics if it cannot be started.
    pub fn redis(arguments: &[&str]) -> Self {
        Self::new(Kind::Redis, None, arguments)
    }

    /// Starts a `redis-server` that accepts only TLS, with additional arguments.
    ///
    /// # Panics
    ///
    /// Panics if it cannot be started.
    pub fn redis_tls(tls: &ServerTls, arguments: &[&str]) -> Self {
        Self::new(Kind::Redis, Some(tls), arguments)
    }

    /// Starts a `nats-server` with additional lines of configuration.
    ///
    /// # Panics
    ///
    /// Panics if it cannot be started.
    pub fn nats(configuration: &[&str]) -> Self {
        Self::new(Kind::Nats, None, configuration)
    }

    /// Starts a `nats-server` that requires TLS, with additional lines of configuration.
    ///
    /// # Panics
    ///
    /// Panics if it cannot be started.
    pub fn nats_tls(tls: &ServerTls, configuration: &[&str]) -> Self {
        Self::new(Kind::Nats, Some(tls), configuration)
    }

    fn new(kind: Kind, tls: Option<&ServerTls>, arguments: &[&str]) -> Self {
        let arguments = arguments.iter().map(ToString::to_string).collect();
        let home = tempfile::tempdir().expect("a temporary directory can be created");
        let mut server = Self { kind, port: free_port(), arguments, tls: tls.cloned(), home, child: None };
        server.start();
        server
    }

    /// Returns the port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the URL, without credentials.
    pub fn url(&self) -> String {
        self.url_with("")
    }

    /// Returns the URL with credentials, given as `user:password@`.
    pub fn url_with(&self, credentials: &str) -> String {
        let scheme = match (self.kind, &self.tls) {
            (Kind::Redis | Kind::Sentinel, None) => "redis",
            (Kind::Redis | Kind::Sentinel, Some(_)) => "rediss",
            (Kind::Nats, None) => "nats",
            (Kind::Nats, Some(_)) => "tls",
        };
        format!("{scheme}://{credentials}127.0.0.1:{}", self.port)
    }

    /// Starts the server again on the same port. It accepts connections when this returns.
    ///
    /// # Panics
    ///
    /// Panics if it cannot be started.
    pub fn start(&mut self) {
        let mut command = match self.kind {
            Kind::Redis => self.redis_command(),
            Kind::Sentinel => self.sentinel_command(),
            Kind::Nats => self.nats_command(),
        };
        let program = command.get_program().to_string_lossy().into_owned();
        let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child =
            command.spawn().unwrap_or_else(|error| panic!("failed to start {program}: {error}; install it"));
        self.child = Some(child);
        // Polled by connecting, since the log messages of the servers depend on their versions.
        let started = now();
        while !self.is_ready() {
            let status = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
            assert!(status.is_none(), "{program} exited: {status:?}");
            assert!(now() - started < START_TIMEOUT, "{program} did not start within {START_TIMEOUT:?}");
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
            fs::write(&configuration, self.arguments.join("\n")).expect("the configuration can be written");
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

    /// Replaces the arguments or lines of configuration. Takes effect at the next start or
    /// [`reload`](Self::reload).
    pub fn configure(&mut self, arguments: &[&str]) {
        self.arguments = arguments.iter().map(ToString::to_string).collect();
    }

    /// Replaces the TLS settings. Takes effect at the next start or
    /// [`reload`](Self::reload).
    pub fn configure_tls(&mut self, tls: Option<&ServerTls>) {
        self.tls = tls.cloned();
    }

    /// Tells a `nats-server` to reload its configuration (SIGHUP). It does so asynchronously.
    pub fn reload(&self) {
        self.write_configuration();
        self.signal("HUP");
    }

    fn write_configuration(&self) -> PathBuf {
        let configuration = self.home.path().join("nats.conf");
        let mut lines = vec!["host: 127.0.0.1".to_owned(), format!("port: {}", self.port)];
        lines.extend(self.tls.as_ref().map(ServerTls::nats_block));
        lines.extend(self.arguments.iter().cloned());
        fs::write(&configuration, lines.join("\n")).expect("the configuration can be written");
        configuration
    }

    fn nats_command(&self) -> Command {
        let configuration = self.write_configuration();
        // Debian installs it in a directory that only root has in its PATH.
        let installed = PathBuf::from("/usr/sbin/nats-server");
        let mut command = Command::new(if installed.exists() { installed } else { "nats-server".into() });
        command.arg("-c").arg(configuration);
        command
    }

    /// Returns `true` if the server responds to a connection.
    fn is_ready(&self) -> bool {
        let Ok(mut stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)) else { return false };
        let _ = stream.set_read_timeout(Some(Duration::from_secs(1)));
        let mut response = [0; 4];
        match self.kind {
            // An error response, such as a missing password, counts too. A server with TLS answers
            // with an alert, or closes the connection.
            Kind::Redis | Kind::Sentinel => {
                stream.write_all(b"PING\r\n").is_ok()
                    && match stream.read(&mut response) {
                        Ok(n) => n > 0 || self.tls.is_some(),
                        Err(error) => self.tls.is_some() && error.kind() == ErrorKind::ConnectionReset,
                    }
            }
            Kind::Nats => stream.read_exact(&mut response).is_ok() && &response == b"INFO",
        }
    }

    /// Stops the server (SIGTERM) and waits until it has exited.
    pub fn stop(&mut self) {
        self.signal("TERM");
        self.wait();
    }

    /// Kills the server (SIGKILL) and waits until it has exited.
    pub fn kill(&mut self) {
        self.signal("KILL");
        self.wait();
    }

    /// Returns the CPU time that the server has used. Zero while it is not running, and on systems
    /// other than Linux.
    pub fn cpu_time(&self) -> Duration {
        let stats = self.thread_files("schedstat");
        Duration::from_nanos(
            stats.iter().filter_map(|stat| stat.split(' ').next()?.parse::<u64>().ok()).sum(),
        )
    }

    /// Freezes the server (SIGSTOP) and waits until it has stopped. Its connections stay open, but
    /// nothing responds.
    ///
    /// # Panics
    ///
    /// Panics if it has exited.
    pub fn freeze(&self) {
        let Some(child) = &self.child else { return };
        self.signal("STOP");
        // One thread receives the signal and then stops the others. The system notifies the parent
        // once all threads have stopped. NOWAIT leaves an exit for `wait` to collect.
        let events = WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        let event = retry_on_intr(|| waitid(WaitId::Pid(Pid::from_child(child)), events));
        assert!(
            event.is_ok_and(|event| event.is_some_and(|event| event.stopped())),
            "the server exited instead of stopping"
        );
    }

    /// Returns the content of a file in `/proc` for each thread of the server. Threads that have
    /// exited are skipped.
    fn thread_files(&self, file: &str) -> Vec<String> {
        let threads =
            self.child.as_ref().and_then(|child| fs::read_dir(format!("/proc/{}/task", child.id())).ok());
        let threads = threads.into_iter().flatten().flatten();
        threads.filter_map(|thread| fs::read_to_string(thread.path().join(file)).ok()).collect()
    }

    /// Resumes a frozen server (SIGCONT).
    pub fn thaw(&self) {
        self.signal("CONT");
    }

    /// Returns `true` if the server was started and neither stopped nor killed since.
    pub fn runs(&self) -> bool {
        self.child.is_some()
    }

    /// Puts a `nats-server` into lame duck mode (SIGUSR2): it tells its clients to leave, closes
    /// their connections one by one after ten seconds, and ends. See
    /// [`wait_for_end`](Self::wait_for_end).
    pub fn lame_duck(&self) {
        self.signal("USR2");
    }

    fn signal(&self, signal: &str) {
        if let Some(child) = &self.child {
            let status = Command::new("kill").arg(format!("-{signal}")).arg(child.id().to_string()).status();
            assert!(status.is_ok_and(|status| status.success()), "failed to send SIG{signal}");
        }
    }

    /// Waits until it ends by itself.
    ///
    /// # Panics
    ///
    /// Panics if it has not ended after a minute.
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

/// Returns a loopback port that is currently unused.
///
/// # Panics
///
/// Panics if no port is found.
pub fn free_port() -> u16 {
    // Below the range of ephemeral ports, so that no outgoing connection takes the port before the
    // server binds it.
    let random = || RandomState::new().build_hasher().finish();
    let mut ports = (0..1000).map(|_| 10_000 + (random() % 20_000) as u16);
    let is_free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    ports.find(is_free).expect("a port is free")
}
