//! Faults of Redis servers with sentinels, of a Redis Cluster, and of a NATS cluster.

use std::ops::Range;
use std::time::Duration;

use psrpc_servers::Server;

use super::{FAILOVER_RECOVERY, Fault, OUTAGE};
use crate::bus_log::Sight;
use crate::setup::SetUp;
use crate::stage::{MASTERS, Stage};

/// A slot of each master.
const SLOTS: [u16; MASTERS] = [0, 8000, 16000];

/// The slots that move from the second master to the third.
const MOVED: Range<u16> = 6000..9000;

/// How long it takes until the other nodes of a Redis Cluster count a node as lost.
const UNTIL_LOST: Duration = Duration::from_secs(4);

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
        begin: |stage| lose_master(stage, Server::kill),
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
        about: "The sentinels replace a healthy master, which becomes a replica.",
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
        begin: |stage| lose_node(stage, Server::kill),
        end: wait_for_replica,
        mend: |stage| {
            let lost = stage.lost;
            stage.redis_cluster().node(lost).start();
            stage.redis_cluster().wait_until_ready();
        },
        ..CLUSTER
    },
    Fault {
        name: "node-frozen",
        about: "A node is frozen, and its replica takes its slots.",
        begin: |stage| lose_node(stage, |node| node.freeze()),
        end: wait_for_replica,
        mend: |stage| {
            let lost = stage.lost;
            stage.redis_cluster().node(lost).thaw();
            stage.redis_cluster().wait_until_ready();
        },
        ..CLUSTER
    },
    Fault {
        name: "slots-lost",
        about: "A node and its replica are killed, so that the cluster refuses locks (CLUSTERDOWN).",
        hold: UNTIL_LOST,
        begin: |stage| {
            let replica = busiest_node(stage) + MASTERS;
            stage.redis_cluster().node(replica).kill();
            lose_node(stage, Server::kill);
        },
        end: |stage| {
            let lost = stage.lost;
            stage.redis_cluster().node(lost).start();
            stage.redis_cluster().node(lost + MASTERS).start();
            stage.redis_cluster().wait_until_ready();
        },
        ..CLUSTER
    },
    Fault {
        name: "resharding",
        about: "Slots move from one node to another, and requests meet slots that are being moved.",
        hold: Duration::from_millis(1500),
        sight: Sight::Nothing,
        begin: |stage| stage.redis_cluster().start_moving(MOVED, 1, 2),
        end: |stage| stage.redis_cluster().finish_moving(MOVED, 1, 2),
        mend: |stage| stage.redis_cluster().move_slots(MOVED, 2, 1),
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

fn lose_master(stage: &mut Stage, lose: fn(&mut Server)) {
    stage.lost = stage.sentinel().master();
    let lost = stage.lost;
    lose(stage.sentinel().server(lost));
}

fn wait_for_new_master(stage: &mut Stage) {
    let lost = stage.lost;
    stage.sentinel().wait_for_new_master(lost);
}

/// Returns the master with the most subscribers. The first master is excluded, since the tests
/// observe the other nodes through it.
fn busiest_node(stage: &mut Stage) -> usize {
    let cluster = stage.redis_cluster();
    let subscribers = |node: &usize| {
        let clients = cluster
            .client(*node)
            .and_then(|mut client| client.command(&["CLIENT", "LIST", "TYPE", "pubsub"]));
        clients.expect("a node lists its clients").to_string().lines().count()
    };
    (1..MASTERS).max_by_key(subscribers).expect("there are masters")
}

fn lose_node(stage: &mut Stage, lose: fn(&mut Server)) {
    stage.lost = busiest_node(stage);
    let lost = stage.lost;
    lose(stage.redis_cluster().node(lost));
}

fn wait_for_replica(stage: &mut Stage) {
    let lost = stage.lost;
    stage.redis_cluster().wait_for_new_owner(SLOTS[lost], lost);
}
