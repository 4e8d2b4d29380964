//! The set-ups of servers that cases run on.

use clap::ValueEnum;

/// A set-up of bus servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum SetUp {
    /// No server: an in-process bus that can be broken. For the tests of this crate.
    Local,
    /// One Redis server.
    Redis,
    /// One Redis server that requires TLS.
    RedisTls,
    /// One Redis server at a Unix socket.
    RedisUnix,
    /// A Redis master with two replicas and three sentinels.
    RedisSentinel,
    /// A Redis Cluster of three masters, each with a replica.
    RedisCluster,
    /// One NATS server.
    Nats,
    /// One NATS server that requires TLS.
    NatsTls,
    /// Three routed NATS servers.
    NatsCluster,
}

impl SetUp {
    /// Every set-up with servers.
    pub const ALL: [SetUp; 8] = [
        Self::Redis,
        Self::RedisTls,
        Self::RedisUnix,
        Self::RedisSentinel,
        Self::RedisCluster,
        Self::Nats,
        Self::NatsTls,
        Self::NatsCluster,
    ];

    /// Returns the name, as the command line takes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Redis => "redis",
            Self::RedisTls => "redis-tls",
            Self::RedisUnix => "redis-unix",
            Self::RedisSentinel => "redis-sentinel",
            Self::RedisCluster => "redis-cluster",
            Self::Nats => "nats",
            Self::NatsTls => "nats-tls",
            Self::NatsCluster => "nats-cluster",
        }
    }
}
