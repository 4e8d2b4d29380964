//! The attacks: the frames of the hostile peer, the reasons by which the victim counts them, and
//! the bound of the memory.

use psrpc_tokio::{ClientLimits, Reason, ServerLimits};

use crate::forge::{Forged, Forger};
use crate::memory::MIB;
use crate::site::Held;

/// The memory of the frames that wait for the victim, and of the tables of honest calls. A
/// subscription queues at most 8,192 frames, and a queued small frame takes less than a kilobyte.
const BASE: u64 = 16 * MIB;
/// The memory of a remembered request, while its table grows.
const REMEMBERED: u64 = 100;
/// The memory of a request that waits for a grant, in the engine and the driver.
const REQUEST: u64 = 2048;
/// The memory of a bid, a response or an update that is kept.
const KEPT: u64 = 512;

const SERVER: ServerLimits = ServerLimits::DEFAULT;
const CLIENT: ClientLimits = ClientLimits::DEFAULT;

/// A kind of forged frames.
pub(crate) struct Attack {
    pub(crate) name: &'static str,
    pub(crate) victim: Victim,
    pub(crate) forge: fn(&mut Forger, usize) -> Forged,
    /// The reasons by which the victim counts the frames. The first must occur, unless the
    /// requests expire before a busy machine has read them.
    pub(crate) reasons: &'static [Reason],
    /// How many frames the victim may accept without dropping them later.
    pub(crate) accepted: usize,
    /// One frame in `share` is published, since the frames are large or slow to handle.
    pub(crate) share: usize,
    pub(crate) held: Held,
    pub(crate) pressure: Pressure,
    /// Whether every line of the log is checked for control characters.
    pub(crate) checks_log: bool,
    /// The limits that bound the memory, and the bound in bytes.
    pub(crate) bound: (&'static str, u64),
}

/// The side that counts the frames.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Victim {
    Client,
    Server,
}

/// How fast the peer publishes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pressure {
    /// It publishes no faster than the victim reads.
    Paced,
    /// It publishes more than fits into the victim's queue.
    Overrun,
    /// It fills the tables of requests, which are made small, for as long as it can.
    FillTable,
}

const fn attack(
    name: &'static str,
    victim: Victim,
    forge: fn(&mut Forger, usize) -> Forged,
    reasons: &'static [Reason],
) -> Attack {
    Attack {
        name,
        victim,
        forge,
        reasons,
        accepted: 0,
        share: 1,
        held: Held::Nothing,
        pressure: Pressure::Paced,
        checks_log: false,
        bound: ("queued frames", BASE),
    }
}

use Victim::{Client, Server};

/// All attacks.
pub(crate) const ATTACKS: &[Attack] = &[
    Attack {
        bound: (
            "`requests`, `remembered`",
            BASE + SERVER.requests as u64 * REQUEST + SERVER.remembered as u64 * REMEMBERED,
        ),
        ..attack("requests", Server, |forger, n| forger.request(n), &[Reason::NotGranted, Reason::Expired])
    },
    Attack {
        bound: ("`remembered`", BASE + SERVER.remembered as u64 * REMEMBERED),
        ..attack(
            "requests that expire in 2262",
            Server,
            |forger, n| forger.far_expiry(n),
            &[Reason::MalformedRequest],
        )
    },
    Attack {
        pressure: Pressure::FillTable,
        bound: ("`remembered`", BASE + SERVER.remembered as u64 * REMEMBERED),
        ..attack(
            "requests that expire in 2262, more than the server remembers",
            Server,
            |forger, n| forger.far_expiry(n),
            &[Reason::DedupFull, Reason::MalformedRequest],
        )
    },
    Attack {
        pressure: Pressure::FillTable,
        bound: (
            "`requests`, `remembered`",
            BASE + SERVER.requests as u64 * REQUEST + SERVER.remembered as u64 * REMEMBERED,
        ),
        ..attack(
            "requests that wait for a grant until the horizon",
            Server,
            |forger, n| forger.waiting_request(n),
            &[Reason::RequestsFull, Reason::NotGranted, Reason::DedupFull],
        )
    },
    attack("requests sent in 2262", Server, |forger, n| forger.far_future(n), &[Reason::FarFuture]),
    attack("expired requests", Server, |forger, n| forger.expired(n), &[Reason::Expired]),
    attack("requests without an id", Server, |forger, n| forger.without_id(n), &[Reason::MissingId]),
    attack(
        "one request again and again",
        Server,
        |forger, n| forger.duplicate(n),
        &[Reason::Duplicate, Reason::MalformedRequest],
    ),
    Attack {
        share: 1000,
        bound: ("`request_bytes`, twice while it is decoded", BASE + 2 * SERVER.request_bytes as u64),
        ..attack(
            "requests of 1 MiB",
            Server,
            |forger, n| forger.large_request(n),
            &[Reason::NotGranted, Reason::RequestsFull, Reason::Expired],
        )
    },
    Attack {
        share: 1000,
        ..attack(
            "requests with 1 MiB in unknown fields",
            Server,
            |forger, n| forger.sparse_request(n),
            &[Reason::NotGranted, Reason::Expired],
        )
    },
    Attack {
        share: 10,
        ..attack("10 MiB of metadata", Server, Forger::large_metadata, &[Reason::FrameLimit])
    },
    Attack {
        share: 2000,
        bound: ("`frame_bytes`, three times while it grows", BASE + 3 * SERVER.frame.frame_bytes as u64),
        ..attack("gzip bombs of 64 MiB", Server, Forger::gzip_bomb, &[Reason::FrameLimit])
    },
    attack("truncated frames", Server, |forger, n| forger.garbage(n), &[Reason::Malformed]),
    attack(
        "responses to a server",
        Server,
        |forger, n| forger.response_to_server(n),
        &[Reason::UnexpectedType],
    ),
    attack("grants to forged servers", Server, |forger, n| forger.grant(n), &[Reason::Elsewhere]),
    Attack {
        bound: (
            "`streams`, `remembered`",
            BASE + SERVER.streams.streams as u64 * REQUEST + SERVER.remembered as u64 * REMEMBERED,
        ),
        ..attack(
            "stream openings",
            Server,
            |forger, n| forger.opening(n),
            &[Reason::NotGranted, Reason::Expired],
        )
    },
    attack(
        "stream messages to a server",
        Server,
        |forger, n| forger.message_to_server(n),
        &[Reason::Elsewhere],
    ),
    attack("acks to a server", Server, |forger, n| forger.ack_to_server(n), &[Reason::Elsewhere]),
    attack("closes to a server", Server, |forger, n| forger.close_to_server(n), &[Reason::Elsewhere]),
    Attack {
        share: 10,
        checks_log: true,
        ..attack(
            "terminal escapes in ids, to a server",
            Server,
            |forger, n| forger.escapes_to_server(n),
            &[Reason::MalformedRequest, Reason::Expired],
        )
    },
    Attack {
        pressure: Pressure::Overrun,
        bound: (
            "queued frames, `requests`, `remembered`",
            2 * BASE + SERVER.requests as u64 * REQUEST + SERVER.remembered as u64 * REMEMBERED,
        ),
        ..attack(
            "more requests than the server can read",
            Server,
            |forger, n| forger.request(n),
            &[Reason::NotGranted, Reason::Expired],
        )
    },
    attack("bids for no call", Client, |forger, n| forger.stray_bid(n), &[Reason::Late]),
    Attack {
        held: Held::Call,
        accepted: CLIENT.bids_per_call,
        bound: ("`bids_per_call`", BASE + CLIENT.bids_per_call as u64 * KEPT),
        ..attack("bids for one call", Client, |forger, n| forger.bid_for_call(n), &[Reason::BidsFull])
    },
    Attack {
        held: Held::Call,
        ..attack(
            "infinite bids for one call",
            Client,
            |forger, n| forger.infinite_bid(n),
            &[Reason::NonFiniteAffinity],
        )
    },
    attack("responses to no call", Client, |forger, n| forger.stray_response(n), &[Reason::Late]),
    Attack {
        held: Held::Call,
        ..attack(
            "responses of servers that were not selected",
            Client,
            |forger, n| forger.response_to_call(n),
            &[Reason::NotSelected],
        )
    },
    Attack {
        held: Held::Multi,
        accepted: CLIENT.responses_per_call,
        bound: ("`responses_per_call`", BASE + CLIENT.responses_per_call as u64 * KEPT),
        ..attack(
            "responses to one multi call",
            Client,
            |forger, n| forger.response_to_call(n),
            &[Reason::ResponsesFull],
        )
    },
    attack(
        "stream messages to a client",
        Client,
        |forger, n| forger.message_to_client(n),
        &[Reason::NoStream],
    ),
    attack("acks to a client", Client, |forger, n| forger.ack_to_client(n), &[Reason::NoStream]),
    Attack {
        held: Held::Subscription,
        accepted: CLIENT.updates_per_subscription,
        bound: ("`updates_per_subscription`", BASE + CLIENT.updates_per_subscription as u64 * KEPT),
        ..attack("updates that nobody takes", Client, |forger, n| forger.update(n), &[Reason::SlowConsumer])
    },
    Attack {
        share: 10,
        checks_log: true,
        ..attack(
            "terminal escapes in ids, to a client",
            Client,
            |forger, n| forger.escapes_to_client(n),
            &[Reason::Late],
        )
    },
];
