//! Faults of a single NATS server that its administrator can cause.

use std::io::Write;
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use psrpc_servers::{Certificates, ServerTls};

use super::{Fault, OUTAGE};
use crate::bus_log::Sight;
use crate::setup::SetUp;
use crate::stage::{PASSWORD, Stage, USER, nats_user};

const ONE: &[SetUp] = &[SetUp::Nats, SetUp::NatsTls];

/// A password other than the first.
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
    Fault {
        name: "max-payload",
        about: "The server is restarted with a limit of 64 bytes for messages, and without it.",
        set_ups: ONE,
        sight: Sight::TwoOutages,
        begin: |stage| restart(stage, &format!("{}\nmax_payload: 64", nats_user(PASSWORD, ""))),
        end: |stage| restart(stage, &nats_user(PASSWORD, "")),
        ..OUTAGE
    },
    Fault {
        name: "max-subscriptions",
        about: "The server is restarted with a limit of 3 subscriptions, and without it.",
        set_ups: &[SetUp::Nats],
        sight: Sight::TwoOutages,
        begin: |stage| restart(stage, &format!("{}\nmax_subscriptions: 3", nats_user(PASSWORD, ""))),
        end: |stage| restart(stage, &nats_user(PASSWORD, "")),
        ..OUTAGE
    },
    Fault {
        name: "lame-duck-alone",
        about: "The server tells its clients to leave, closes one after the other, and is started again.",
        set_ups: &[SetUp::Nats],
        hold: Duration::ZERO,
        begin: |stage| stage.server().lame_duck(),
        end: |stage| {
            stage.server().wait_for_end();
            stage.server().start();
        },
        ..OUTAGE
    },
    Fault {
        name: "slow-consumers",
        about: "The buses read nothing for a moment, and exceed the limit for pending bytes.",
        set_ups: &[SetUp::Nats],
        proxied: true,
        begin: |stage| {
            stage.proxy().hold();
            flood(stage);
        },
        end: |stage| stage.proxy().forward(),
        ..OUTAGE
    },
];

/// Publishes more bytes to all clients and servers than the pending limit and the buffers of the
/// operating system can hold together.
fn flood(stage: &mut Stage) {
    let connect = format!("CONNECT {{\"user\":\"{USER}\",\"pass\":\"{PASSWORD}\",\"verbose\":false}}\r\n");
    let large = format!("PUB SRV.Hats 1000000\r\n{}\r\n", "x".repeat(1_000_000));
    let mut stream =
        TcpStream::connect((Ipv4Addr::LOCALHOST, stage.server().port())).expect("the server runs");
    let written = stream
        .write_all(connect.as_bytes())
        .and_then(|()| (0..24).try_for_each(|_| stream.write_all(large.as_bytes())));
    written.expect("the server accepts the messages");
}

fn reload(stage: &mut Stage, configuration: &str) {
    let server = stage.server();
    server.configure(&[configuration]);
    server.reload();
}

fn restart(stage: &mut Stage, configuration: &str) {
    let server = stage.server();
    server.stop();
    server.configure(&[configuration]);
    server.start();
}

fn restart_with_tls(stage: &mut Stage, tls: Option<&ServerTls>) {
    let server = stage.server();
    server.stop();
    server.configure_tls(tls);
    server.start();
}
