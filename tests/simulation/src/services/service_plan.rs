//! The plan of a run of the driver: everything that its seed decides in advance.

use std::time::Duration;

use psrpc::{SlowConsumer, WallTime};

use crate::clock::{Clock, EPOCH};
use crate::rng::{GRAIN, Rng};

/// The participants of a run and its schedule.
pub(super) struct ServicePlan {
    pub(super) clients: Vec<ClientPlan>,
    pub(super) servers: Vec<ServerPlan>,
    /// Whether the bus has faults.
    pub(super) faulty: bool,
    /// Sorted by time.
    pub(super) acts: Vec<(Duration, ServiceAct)>,
}

#[derive(Clone)]
pub(super) struct ClientPlan {
    pub(super) clock: Clock,
    pub(super) allowance: Duration,
    /// The number of messages of a stream that may wait for their consumer.
    pub(super) room: usize,
    pub(super) slow_consumer: SlowConsumer,
    /// Whether its calls have interceptors.
    pub(super) intercepted: bool,
}

#[derive(Clone)]
pub(super) struct ServerPlan {
    pub(super) clock: Clock,
    pub(super) allowance: Duration,
    pub(super) room: usize,
    pub(super) slow_consumer: SlowConsumer,
    pub(super) intercepted: bool,
    pub(super) affinity: f32,
}

/// A planned act. Clients, servers and nodes are identified by their indices.
#[derive(Debug)]
pub(super) enum ServiceAct {
    Use(usize),
    CloseClient(usize),
    CrashClient(usize),
    EndRuntimeOfClient(usize),
    StopServer(usize, Stop),
    Pause(usize, Duration),
    Slow(usize, Duration),
    Jump(usize, bool, Duration),
    Clog(usize, Duration),
    Part { both_ways: bool, at: usize },
    Mend,
}

/// How a server ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    Shutdown,
    Drop,
    Kill,
    Crash,
    RuntimeEnd,
}

impl ServicePlan {
    pub(super) fn draw(rng: &mut Rng) -> Self {
        // Half of the largest skew between two nodes, in grains.
        let skew = rng.pick(&[0, 0, 40, 1200]);
        let clients = (0..rng.within(1..4)).map(|_| ClientPlan::draw(rng, skew)).collect::<Vec<_>>();
        let servers = (0..rng.within(2..4)).map(|_| ServerPlan::draw(rng, skew)).collect::<Vec<_>>();
        let uses = rng.within(15..60);
        let span = uses * rng.pick(&[4, 40, 200]);
        let moment = |rng: &mut Rng| Duration::from_millis(20) + rng.grains(0..span);
        let mut acts: Vec<_> =
            (0..uses).map(|_| (moment(rng), ServiceAct::Use(rng.index(clients.len())))).collect();
        let faulty = rng.chance(900);
        for _ in 0..if faulty { rng.below(8) } else { 0 } {
            let at = moment(rng);
            let (client, server) = (rng.index(clients.len()), rng.index(servers.len()));
            let node = rng.index(clients.len() + servers.len());
            acts.push((
                at,
                match rng.below(12) {
                    0 if rng.chance(500) => ServiceAct::EndRuntimeOfClient(client),
                    0 => ServiceAct::CloseClient(client),
                    1 => ServiceAct::CrashClient(client),
                    2..=4 => ServiceAct::StopServer(
                        server,
                        rng.pick(&[Stop::Shutdown, Stop::Drop, Stop::Kill, Stop::Crash, Stop::RuntimeEnd]),
                    ),
                    5 => ServiceAct::Pause(node, rng.grains(1..4000)),
                    6 => ServiceAct::Slow(node, rng.grains(1..20)),
                    7 => ServiceAct::Jump(node, rng.chance(500), rng.grains(1..1200)),
                    8 => ServiceAct::Clog(node, rng.grains(1..4000)),
                    9 => ServiceAct::Mend,
                    _ => ServiceAct::Part { both_ways: rng.chance(500), at: node },
                },
            ));
        }
        for _ in 0..if faulty { rng.below(3) } else { 0 } {
            acts.push((moment(rng), ServiceAct::EndRuntimeOfClient(rng.index(clients.len()))));
        }
        acts.sort_by_key(|(at, _)| *at);
        Self { clients, servers, faulty, acts }
    }
}

impl ClientPlan {
    fn draw(rng: &mut Rng, skew: u64) -> Self {
        let (clock, allowance) = (clock(rng, skew), allowance(rng, skew));
        let (room, slow_consumer) = capacity(rng);
        Self { clock, allowance, room, slow_consumer, intercepted: rng.chance(500) }
    }
}

impl ServerPlan {
    fn draw(rng: &mut Rng, skew: u64) -> Self {
        let (clock, allowance) = (clock(rng, skew), allowance(rng, skew));
        let ((room, slow_consumer), intercepted) = (capacity(rng), rng.chance(500));
        Self { clock, allowance, room, slow_consumer, intercepted, affinity: rng.pick(&[0.25, 0.5, 1.0]) }
    }
}

/// Draws how many messages of a stream may wait for their consumer, and what happens to others.
fn capacity(rng: &mut Rng) -> (usize, SlowConsumer) {
    match rng.chance(600) {
        true => (rng.pick(&[1024, 2, 1]), SlowConsumer::HoldBack),
        // With less room, a fresh message may be discarded before its handler takes the one before.
        false => (rng.pick(&[1024, 2]), SlowConsumer::Discard),
    }
}

fn allowance(rng: &mut Rng, skew: u64) -> Duration {
    GRAIN * u32::try_from(rng.pick(&[0, skew, 2 * skew])).expect("skews are short")
}

/// Draws a clock whose wall time is off by up to `skew` grains, perhaps with drift.
fn clock(rng: &mut Rng, skew: u64) -> Clock {
    let ahead = rng.grains(0..skew + 1).as_nanos() as i64;
    let off = if rng.chance(500) { ahead } else { -ahead };
    let wall = WallTime::from_unix_nanos(EPOCH.as_unix_nanos() + off);
    Clock {
        monotonic: rng.grains(0..4_000_000_000),
        wall,
        drift: rng.pick(&[0, 0, 300, -300]),
        ..Clock::ACCURATE
    }
}
