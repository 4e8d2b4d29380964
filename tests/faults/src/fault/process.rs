//! Faults of the process of the only server.

use std::time::Duration;

use super::{Fault, OUTAGE};
use crate::bus_log::Sight;
use crate::setup::SetUp;

/// The set-ups with one server.
const ONE: &[SetUp] = &[SetUp::Redis, SetUp::RedisTls, SetUp::RedisUnix, SetUp::Nats, SetUp::NatsTls];

pub(super) static FAULTS: &[Fault] = &[
    Fault {
        name: "restart",
        about: "The server is stopped (SIGTERM), and started again.",
        set_ups: ONE,
        begin: |stage| stage.server().stop(),
        end: |stage| stage.server().start(),
        ..OUTAGE
    },
    Fault {
        name: "kill",
        about: "The server is killed (SIGKILL), and started again.",
        set_ups: ONE,
        begin: |stage| stage.server().kill(),
        end: |stage| stage.server().start(),
        ..OUTAGE
    },
    Fault {
        name: "freeze",
        about: "The server is frozen (SIGSTOP) for a moment.",
        set_ups: ONE,
        hold: Duration::from_millis(700),
        sight: Sight::Nothing,
        begin: |stage| stage.server().freeze(),
        end: |stage| stage.server().thaw(),
        ..OUTAGE
    },
    Fault {
        name: "freeze-long",
        about: "The server is frozen (SIGSTOP) until the buses give it up.",
        set_ups: ONE,
        hold: Duration::from_secs(7),
        begin: |stage| stage.server().freeze(),
        end: |stage| stage.server().thaw(),
        ..OUTAGE
    },
];
