//! Faults of a single Redis server that its administrator can cause.

use std::time::Duration;

use super::{Fault, OUTAGE};
use crate::bus_log::Sight;
use crate::setup::SetUp;
use crate::stage::{PASSWORD, Stage, USER};

const ONE: &[SetUp] = &[SetUp::Redis, SetUp::RedisTls, SetUp::RedisUnix];

/// The set-ups for faults to which TLS makes no difference.
const PLAIN: &[SetUp] = &[SetUp::Redis, SetUp::RedisUnix];

/// A password other than the first.
const OTHER_PASSWORD: &str = "s3cret-bowler";

/// The default of Redis for the output buffers of subscribers.
const DEFAULT_BUFFERS: &str = "pubsub 33554432 8388608 60";

/// The longest time until a bus notices that its server is a replica.
const UNTIL_PROBED: Duration = Duration::from_secs(5);

pub(super) static FAULTS: &[Fault] = &[
    Fault {
        name: "kill-subscribers",
        about: "The server closes the connections of all subscribers (CLIENT KILL TYPE pubsub).",
        set_ups: ONE,
        hold: Duration::ZERO,
        begin: |stage| stage.redis(&["CLIENT", "KILL", "TYPE", "pubsub"]),
        ..OUTAGE
    },
    Fault {
        name: "kill-publishers",
        about: "The server closes all connections without subscriptions (CLIENT KILL TYPE normal).",
        set_ups: ONE,
        hold: Duration::ZERO,
        begin: |stage| stage.redis(&["CLIENT", "KILL", "TYPE", "normal"]),
        ..OUTAGE
    },
    Fault {
        name: "pause",
        about: "The server takes no commands for a second (CLIENT PAUSE).",
        set_ups: PLAIN,
        hold: Duration::from_secs(1),
        sight: Sight::Nothing,
        begin: |stage| stage.redis(&["CLIENT", "PAUSE", "1000", "ALL"]),
        ..OUTAGE
    },
    Fault {
        name: "slow-subscribers",
        about: "The output of all subscribers exceeds their buffers (client-output-buffer-limit).",
        set_ups: PLAIN,
        hold: Duration::ZERO,
        begin: overflow,
        end: |stage| stage.redis(&["CONFIG", "SET", "client-output-buffer-limit", DEFAULT_BUFFERS]),
        ..OUTAGE
    },
    Fault {
        name: "wrong-password",
        about: "The password of the user changes, and the buses still send the old one.",
        set_ups: ONE,
        sight: Sight::RefusedOutage,
        begin: |stage| change_password(stage, OTHER_PASSWORD),
        end: |stage| change_password(stage, PASSWORD),
        ..OUTAGE
    },
    Fault {
        name: "rotated-password",
        about: "The password of the user changes, and the buses get the new one later.",
        set_ups: PLAIN,
        sight: Sight::RefusedOutage,
        begin: |stage| change_password(stage, OTHER_PASSWORD),
        end: |stage| stage.use_password(OTHER_PASSWORD),
        ..OUTAGE
    },
    Fault {
        name: "no-channels",
        about: "The user loses the rights to all channels (ACL SETUSER resetchannels).",
        set_ups: PLAIN,
        sight: Sight::RefusedSubscriptions,
        begin: |stage| set_user(stage, "resetchannels"),
        end: |stage| set_user(stage, "allchannels"),
        ..OUTAGE
    },
    Fault {
        name: "no-publish",
        about: "The user loses the right to publish (ACL SETUSER -publish).",
        set_ups: PLAIN,
        sight: Sight::Nothing,
        begin: |stage| set_user(stage, "-publish"),
        end: |stage| set_user(stage, "+publish"),
        ..OUTAGE
    },
    Fault {
        name: "locks-noperm",
        about: "The user loses the right to take locks (ACL SETUSER -set).",
        set_ups: PLAIN,
        sight: Sight::RefusedLocks,
        begin: |stage| set_user(stage, "-set"),
        end: |stage| set_user(stage, "+set"),
        ..OUTAGE
    },
    Fault {
        name: "locks-oom",
        about: "The server has no memory for locks (OOM).",
        set_ups: PLAIN,
        sight: Sight::RefusedLocks,
        begin: |stage| stage.redis(&["CONFIG", "SET", "maxmemory", "1"]),
        end: |stage| stage.redis(&["CONFIG", "SET", "maxmemory", "0"]),
        ..OUTAGE
    },
    Fault {
        name: "locks-noreplicas",
        about: "The server refuses locks, since it has no replicas (NOREPLICAS).",
        set_ups: PLAIN,
        sight: Sight::RefusedLocks,
        begin: |stage| stage.redis(&["CONFIG", "SET", "min-replicas-to-write", "1"]),
        end: |stage| stage.redis(&["CONFIG", "SET", "min-replicas-to-write", "0"]),
        ..OUTAGE
    },
    Fault {
        name: "demoted",
        about: "The server becomes a replica, which is read-only (REPLICAOF), and a master again.",
        set_ups: ONE,
        hold: UNTIL_PROBED,
        // No server listens at the port.
        begin: |stage| stage.redis(&["REPLICAOF", "127.0.0.1", "1"]),
        end: |stage| stage.redis(&["REPLICAOF", "NO", "ONE"]),
        ..OUTAGE
    },
];

/// Lowers the limit of the output buffers, and publishes a message that exceeds it to all clients
/// and servers.
fn overflow(stage: &mut Stage) {
    stage.redis(&["CONFIG", "SET", "client-output-buffer-limit", "pubsub 1024 1024 1"]);
    let large = "x".repeat(200_000);
    for channel in ["Hats|News|REQ", "Hats|Census|REQ"] {
        stage.redis(&["PUBLISH", channel, &large]);
    }
}

fn set_user(stage: &Stage, rule: &str) {
    stage.redis(&["ACL", "SETUSER", USER, rule]);
}

fn change_password(stage: &Stage, password: &str) {
    stage.redis(&["ACL", "SETUSER", USER, "resetpass", &format!(">{password}")]);
    stage.redis(&["CLIENT", "KILL", "USER", USER]);
}
