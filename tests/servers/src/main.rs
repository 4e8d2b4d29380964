//! Runs a command with servers: `psrpc-servers KIND COMMAND... URL ...`.
//!
//! | kind | servers |
//! |---|---|
//! | `redis`, `nats` | one |
//! | `redis-unix` | one at a Unix socket; the user of the URL has the rights that psrpc-bus-redis documents, for the services of psrpc-conformance |
//! | `redis-tls`, `nats-tls` | one, which requires TLS and a client certificate |
//! | `redis-sentinel` | a Redis master, two replicas and three sentinels |
//! | `redis-cluster` | a Redis Cluster of three masters |
//! | `nats-cluster` | three routed NATS servers |
//!
//! In the command the word `URL` stands for the URL of the servers. With TLS the words `CA`, `CERT`
//! and `KEY` stand for the paths of PEM files: the certificate of the authority, a client
//! certificate and its private key.

use std::any::Any;
use std::process::{Command, ExitCode};

use psrpc_servers::{
    Certificates, NatsCluster, RedisCluster, RedisClusterOptions, SentinelGroup, SentinelOptions, Server,
    ServerTls,
};
use tempfile::TempDir;

const KINDS: &str =
    "redis, redis-unix, redis-tls, redis-sentinel, redis-cluster, nats, nats-tls or nats-cluster";

/// A user with the rights that the documentation of psrpc-bus-redis lists, for the services of
/// psrpc-conformance.
const USER: &str = "hatter on >password resetchannels &Shop|* &Gossip|* &Shelf|* &Relay|* \
                    &Countdown|* &psrpc-probe:* ~* -@all +hello +ping +publish +subscribe +unsubscribe +set";

/// Servers that run until this is dropped, and the values of the words that the command may
/// contain.
struct Running {
    words: Vec<(&'static str, String)>,
    _servers: Box<dyn Any>,
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let kind = arguments.next().unwrap_or_default();
    let Some(running) = start(&kind) else {
        eprintln!("unknown kind {kind:?}: expected {KINDS}");
        return ExitCode::FAILURE;
    };
    let command: Vec<_> = arguments.map(|word| running.replace(word)).collect();
    let [program, arguments @ ..] = &command[..] else {
        eprintln!("missing command: usage is psrpc-servers KIND COMMAND...");
        return ExitCode::FAILURE;
    };
    match Command::new(program).args(arguments).status() {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("failed to run {program}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn start(kind: &str) -> Option<Running> {
    Some(match kind {
        "redis" => Running::plain(Server::redis(&[]), Server::url),
        "redis-unix" => Running::at_unix_socket(),
        "redis-tls" => Running::with_tls(|tls| Server::redis_tls(tls, &[])),
        "redis-sentinel" => {
            Running::plain(SentinelGroup::new(&SentinelOptions::default()), SentinelGroup::url)
        }
        "redis-cluster" => {
            Running::plain(RedisCluster::new(&RedisClusterOptions::default()), RedisCluster::url)
        }
        "nats" => Running::plain(Server::nats(&[]), Server::url),
        "nats-tls" => Running::with_tls(|tls| Server::nats_tls(tls, &[])),
        "nats-cluster" => Running::plain(NatsCluster::new(None, &[]), NatsCluster::url),
        _ => return None,
    })
}

impl Running {
    fn plain<S: Any>(servers: S, url: impl FnOnce(&S) -> String) -> Self {
        Self { words: vec![("URL", url(&servers))], _servers: Box::new(servers) }
    }

    fn at_unix_socket() -> Self {
        let directory = TempDir::new().expect("a temporary directory can be created");
        let path = directory.path().join("redis.sock").display().to_string();
        let mut arguments = vec!["--unixsocket", &path, "--user"];
        arguments.extend(USER.split_whitespace());
        let server = Server::redis(&arguments);
        let url = format!("redis+unix://{path}?user=hatter&pass=password");
        Self { words: vec![("URL", url)], _servers: Box::new((server, directory)) }
    }

    fn with_tls(start: impl FnOnce(&ServerTls) -> Server) -> Self {
        let certificates = Certificates::new();
        let mut running =
            Self::plain(start(&ServerTls::new(&certificates).require_client_certificate()), Server::url);
        let client = certificates.client();
        let files = [("CA", certificates.authority()), ("CERT", client.certificate()), ("KEY", client.key())];
        running.words.extend(files.map(|(word, file)| (word, file.path().display().to_string())));
        running
    }

    fn replace(&self, word: String) -> String {
        let found = self.words.iter().find(|(name, _)| *name == word);
        found.map_or(word, |(_, value)| value.clone())
    }
}
