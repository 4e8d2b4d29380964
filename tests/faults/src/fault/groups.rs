//! Faults of one server of several: failovers.

use std::time::Duration;

use super::{FAILOVER_RECOVERY, Fault, OUTAGE};
use crate::bus_log::Sight;
use crate::setup::SetUp;
use crate::stage::Stage;

/// A slot of the first node of a Redis Cluster.
const SLOT: u16 = 0;

/// How long it takes until a frozen NATS server is given up.
const UNTIL_GIVEN_UP: Duration = Duration::from_secs(3);

const SENTINEL: Fault =
    Fault { set_ups: &[SetUp::RedisSentinel], hold: Duration::ZERO, recovery: FAILOVER_RECOVERY, ..OUTAGE };

const CLUSTER: Fault = Fault { set_ups: &[SetUp::RedisCluster], sight: Sight::OutageOfSome, ..SENTINEL };

const NATS_CLUSTER: Fault = Fault { set_ups: &[SetUp::NatsCluster], sight: Sight::OutageOfSome, ..SENTINEL };

pub(super) static FAULTS: &[Fault] = &[
    Fault {
        name: "master-killed",
        about: "The master is killed, and the sentinels elect another.",
        begin: |stage| lose_master(stage, psrpc_servers::Server::kill),
        end: wait_for_new_master,
        mend: |stage| {
            let lost = stage.lost;
            stage.sentinel().server(lost).start();
            stage.sentinel().wait_until_ready();
        },
        ..SENTINEL
    },
    Fault {
        name: "master-frozen",
        about: "The master is frozen, and the sentinels elect another.",
        begin: |stage| lose_master(stage, |master| master.freeze()),
        end: wait_for_new_master,
        mend: |stage| {
            let lost = stage.lost;
            stage.sentinel().server(lost).thaw();
            stage.sentinel().wait_until_ready();
        },
        ..SENTINEL
    },
    Fault {
        name: "failover",
        about: "The sentinels replace a master that is well, which becomes a replica.",
        begin: |stage| _ = stage.sentinel().failover(),
        mend: |stage| stage.sentinel().wait_until_ready(),
        ..SENTINEL
    },
    Fault {
        name: "sentinel-lost",
        about: "One of the sentinels is stopped.",
        sight: Sight::Nothing,
        begin: |stage| stage.sentinel().sentinel(0).stop(),
        mend: |stage| {
            stage.sentinel().sentinel(0).start();
            stage.sentinel().wait_until_ready();
        },
        ..SENTINEL
    },
    Fault {
        name: "node-killed",
        about: "A node is killed, and its replica takes its slots.",
        begin: |stage| stage.redis_cluster().node(0).kill(),
        end: |stage| _ = stage.redis_cluster().wait_for_new_owner(SLOT, 0),
        mend: |stage| {
            stage.redis_cluster().node(0).start();
            stage.redis_cluster().wait_until_ready();
        },
        ..CLUSTER
    },
    Fault {
        name: "node-frozen",
        about: "A node is frozen, and its replica takes its slots.",
        begin: |stage| stage.redis_cluster().node(0).freeze(),
        end: |stage| stage.redis_cluster().wait_until_lost(0),
        mend: |stage| {
            stage.redis_cluster().node(0).thaw();
            stage.redis_cluster().wait_until_ready();
        },
        ..CLUSTER
    },
    Fault {
        name: "nats-node-killed",
        about: "A node is killed.",
        begin: |stage| stage.nats_cluster().node(0).kill(),
        mend: |stage| {
            stage.nats_cluster().node(0).start();
            stage.nats_cluster().wait_until_ready();
        },
        ..NATS_CLUSTER
    },
    Fault {
        name: "nats-node-frozen",
        about: "A node is frozen.",
        hold: UNTIL_GIVEN_UP,
        loses_between_servers: true,
        begin: |stage| stage.nats_cluster().node(0).freeze(),
        mend: |stage| {
            stage.nats_cluster().node(0).thaw();
            stage.nats_cluster().wait_until_ready();
        },
        ..NATS_CLUSTER
    },
    Fault {
        name: "lame-duck",
        about: "A node tells its clients to leave, and ends.",
        begin: |stage| stage.nats_cluster().node(0).lame_duck(),
        mend: |stage| {
            stage.nats_cluster().node(0).wait_for_end();
            stage.nats_cluster().node(0).start();
            stage.nats_cluster().wait_until_ready();
        },
        ..NATS_CLUSTER
    },
    Fault {
        name: "route-cut",
        about: "The route between two nodes is cut, and restored.",
        hold: Duration::from_millis(1500),
        sight: Sight::Nothing,
        loses_between_servers: true,
        begin: |stage| stage.nats_cluster().cut_route(0, 1),
        end: |stage| stage.nats_cluster().restore_route(0, 1),
        ..NATS_CLUSTER
    },
];

fn lose_master(stage: &mut Stage, lose: fn(&mut psrpc_servers::Server)) {
    stage.lost = stage.sentinel().master();
    let lost = stage.lost;
    lose(stage.sentinel().server(lost));
}

fn wait_for_new_master(stage: &mut Stage) {
    let lost = stage.lost;
    stage.sentinel().wait_for_new_master(lost);
}
