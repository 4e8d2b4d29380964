//! Faults of a single NATS server that its administrator can cause.

use super::{Fault, OUTAGE};
use crate::bus_log::Sight;
use crate::setup::SetUp;
use crate::stage::{PASSWORD, Stage, nats_user};
use psrpc_servers::{Certificates, ServerTls};

const ONE: &[SetUp] = &[SetUp::Nats, SetUp::NatsTls];

/// Another password than the first.
const OTHER_PASSWORD: &str = "s3cret-bowler";

/// The permissions of a user who can do nothing but check the connection.
const INBOX_ONLY: &str = ", permissions: { publish: [\"_INBOX.>\"], subscribe: [\"_INBOX.>\"] }";

pub(super) static FAULTS: &[Fault] = &[
    Fault {
        name: "wrong-credentials",
        about: "The password of the user changes (SIGHUP), and the buses still send the old one.",
        set_ups: ONE,
        sight: Sight::RefusedOutage,
        begin: |stage| reload(stage, &nats_user(OTHER_PASSWORD, "")),
        end: |stage| reload(stage, &nats_user(PASSWORD, "")),
        ..OUTAGE
    },
    Fault {
        name: "rotated-credentials",
        about: "The password of the user changes (SIGHUP), and the buses get the new one later.",
        set_ups: ONE,
        sight: Sight::RefusedOutage,
        begin: |stage| reload(stage, &nats_user(OTHER_PASSWORD, "")),
        end: |stage| stage.use_password(OTHER_PASSWORD),
        ..OUTAGE
    },
    Fault {
        name: "no-permissions",
        about: "The user loses the permissions for all subjects (SIGHUP).",
        set_ups: ONE,
        sight: Sight::RefusedSubscriptions,
        begin: |stage| reload(stage, &nats_user(PASSWORD, INBOX_ONLY)),
        end: |stage| reload(stage, &nats_user(PASSWORD, "")),
        ..OUTAGE
    },
    Fault {
        name: "requires-tls",
        about: "The server is restarted with TLS, and restarted without it.",
        set_ups: &[SetUp::Nats],
        sight: Sight::RefusedOutage,
        begin: |stage| restart_with_tls(stage, Some(&ServerTls::new(&Certificates::new()))),
        end: |stage| restart_with_tls(stage, None),
        ..OUTAGE
    },
];

fn reload(stage: &mut Stage, configuration: &str) {
    let server = stage.server();
    server.configure(&[configuration]);
    server.reload();
}

fn restart_with_tls(stage: &mut Stage, tls: Option<&ServerTls>) {
    let server = stage.server();
    server.stop();
    server.configure_tls(tls);
    server.start();
}
