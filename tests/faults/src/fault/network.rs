//! Faults of the network between the buses and a healthy server.

use std::time::Duration;

use super::{Fault, OUTAGE};
use crate::bus_log::Sight;
use crate::setup::SetUp;

/// The set-ups with one server at a TCP port.
const ONE: &[SetUp] = &[SetUp::Redis, SetUp::RedisTls, SetUp::Nats, SetUp::NatsTls];

/// Long enough for a bus to give up a connection that is silent.
const SILENCE: Duration = Duration::from_secs(7);

/// The defaults of most faults of the network.
const NETWORK: Fault = Fault { set_ups: ONE, proxied: true, ..OUTAGE };

pub(super) static FAULTS: &[Fault] = &[
    Fault {
        name: "latency",
        about: "Everything takes 40 ms longer, each way.",
        sight: Sight::Nothing,
        begin: |stage| stage.proxy().delay(Duration::from_millis(40)),
        end: |stage| stage.proxy().delay(Duration::ZERO),
        ..NETWORK
    },
    Fault {
        name: "stall",
        about: "Nothing arrives for a moment, and then all at once.",
        hold: Duration::from_millis(800),
        sight: Sight::Nothing,
        begin: |stage| stage.proxy().hold(),
        end: |stage| stage.proxy().forward(),
        ..NETWORK
    },
    Fault {
        name: "half-open",
        about: "Connections stay open and new ones are accepted, but nothing arrives.",
        hold: SILENCE,
        begin: |stage| stage.proxy().hold(),
        end: |stage| stage.proxy().forward(),
        ..NETWORK
    },
    Fault {
        name: "half-open-replies",
        about: "The server receives everything, but nothing arrives from it.",
        hold: SILENCE,
        begin: |stage| stage.proxy().hold_replies(),
        end: |stage| stage.proxy().forward(),
        ..NETWORK
    },
    Fault {
        name: "cut",
        about: "All connections are cut once.",
        hold: Duration::ZERO,
        begin: |stage| stage.proxy().cut(),
        ..NETWORK
    },
    Fault {
        name: "accept-and-drop",
        about: "Each connection is accepted and closed.",
        hold: Duration::from_secs(3),
        begin: |stage| stage.proxy().refuse(),
        end: |stage| stage.proxy().forward(),
        ..NETWORK
    },
    Fault {
        name: "truncate",
        about: "Each connection is closed after the next three bytes from the server.",
        begin: |stage| stage.proxy().truncate(3),
        end: |stage| stage.proxy().forward(),
        ..NETWORK
    },
];
