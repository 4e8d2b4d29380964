//! The plan of a run of engines: everything that its seed decides in advance.

use std::time::Duration;

use psrpc_engine::{
    ClientConfig, ClientLimits, Route, ServerConfig, ServerLimits, SlowConsumer, StreamConfig, StreamLimits,
    Time, WallTime,
};

use super::methods::{Methods, SERVICE};
use super::stream_user::ENOUGH_HELD;
use crate::clock::{Clock, EPOCH};
use crate::fault::Fault;
use crate::rng::{GRAIN, Rng};

/// The earliest time of a call: some clients are ready by then, others are not.
const START: Time = Time::from_nanos(20_000_000);

/// The time between the end of the faults and the fresh calls. By then no server is starting or
/// stopping, no frame waits behind a delayed one, and requests of forged clients have expired and
/// are forgotten. The worst case is a request from a client whose clock jumped ahead to a server
/// whose clock jumped back: it lives longer by both jumps.
const SETTLE: Duration = Duration::from_secs(12);

/// The duration of the phase of fresh calls.
const PROBE: Duration = Duration::from_secs(4);

/// The number of concurrent requests that one client's fresh calls make.
const FRESH_REQUESTS: usize = 10;

/// The number of older requests that may be left at the time of the fresh calls.
const SPARE_REQUESTS: usize = 6;

/// The number of fresh calls around the shutdown of a server.
const CALLS_DURING_SHUTDOWN: usize = 8;

/// The time after which every table must be empty. It is longer than the longest call, plus the
/// longest handler or late frame, plus the longest time that a request is remembered.
const UNTIL_EMPTY: Duration = Duration::from_secs(20);

/// The participants of a run and its schedule.
pub(crate) struct EnginePlan {
    pub(crate) clients: Vec<ClientSlot>,
    pub(crate) servers: Vec<ServerSlot>,
    pub(crate) acts: Vec<(Time, EngineAct)>,
    /// The time at which the faults stop.
    pub(crate) calm: Time,
    /// The time at which the jumps of the wall clocks are undone, after all late frames have
    /// arrived.
    pub(crate) reset_clocks: Time,
    /// The time of the fresh calls.
    pub(crate) probe: Time,
    /// The time at which a server shuts down.
    pub(crate) shutdown: Time,
    /// The times of the fresh calls around the shutdown, which must not affect them.
    pub(crate) calls_during_shutdown: Vec<Time>,
    /// The end of the run.
    pub(crate) end: Time,
}

/// A planned act of users or of the environment.
#[derive(Clone, Copy, Debug)]
pub(crate) enum EngineAct {
    /// The user of the client in a slot makes a call of any kind, or subscribes or unsubscribes.
    Use(usize),
    /// The user of the client in a slot makes a claimed call, which must succeed.
    Call(usize),
    /// The server in a slot publishes an update.
    Publish(usize),
    /// The client in a slot closes or crashes, and is replaced.
    StopClient(usize, Fault),
    /// The server in a slot drains, is killed, or crashes, and is replaced.
    StopServer(usize, Fault),
    /// Some nodes cannot reach others for a while.
    Cut(Fault, Duration),
    /// Frames to a node are held up for a while.
    Clog(Duration),
    /// A node is paused for a while.
    Pause(Duration),
    /// The wall clock of a node jumps.
    Jump(i64),
}

/// A slot for a client. Its replacements have the same configuration and clocks.
pub(crate) struct ClientSlot {
    pub(crate) config: ClientConfig,
    pub(crate) clock: Clock,
}

/// A slot for a server. Its replacements have the same configuration and clocks.
pub(crate) struct ServerSlot {
    pub(crate) config: ServerConfig,
    pub(crate) clock: Clock,
    /// Its methods, in the groups in which they are registered.
    pub(crate) registrations: Vec<Vec<Route>>,
}

impl EnginePlan {
    pub(crate) fn draw(rng: &mut Rng, methods: &Methods) -> Self {
        let clocks = Clocks::draw(rng);
        let streams = StreamConfig {
            idle_timeout: rng.maybe(500, |rng| rng.grains(2000..8000)),
            slow_consumer: rng.pick(&[
                SlowConsumer::HoldBack,
                SlowConsumer::HoldBack,
                SlowConsumer::Discard,
                SlowConsumer::Close,
            ]),
        };
        let clients = rng.within(1..5);
        let tight = rng.maybe(500, |rng| TightLimits::draw(rng, &clocks, clients as usize));
        let clients = (0..clients)
            .map(|_| ClientSlot { config: client_config(rng, streams, tight), clock: clocks.one(rng) })
            .collect::<Vec<_>>();
        let servers = (0..rng.within(2..5))
            .map(|slot| {
                let config = server_config(rng, streams, tight, clocks.skew);
                let registrations = registrations(rng, methods.served(slot == 0));
                ServerSlot { config, clock: clocks.one(rng), registrations }
            })
            .collect::<Vec<_>>();
        // Enough to reach tight limits.
        let uses = if tight.is_some() { rng.within(60..200) } else { rng.within(20..140) };
        let span = uses * rng.pick(&[1, 8, 40]);
        let acts = draw_acts(rng, clients.len(), servers.len(), uses, span, clocks.jumps);
        let calm = START + GRAIN * u32::try_from(span).expect("spans are short");
        let probe = calm + SETTLE;
        let reset_clocks = calm + SETTLE * 9 / 10;
        let shutdown = probe + PROBE;
        let calls_during_shutdown =
            (0..CALLS_DURING_SHUTDOWN).map(|_| shutdown + rng.grains(0..300)).collect();
        // The shutdown falls among these calls.
        let shutdown = shutdown + rng.grains(0..300);
        Self {
            clients,
            servers,
            acts,
            calm,
            reset_clocks,
            probe,
            shutdown,
            calls_during_shutdown,
            end: shutdown + UNTIL_EMPTY,
        }
    }
}

impl EnginePlan {
    /// Returns a plan in which a client makes `calls` claimed calls, a few at a time, and nothing
    /// else happens. Used to measure speed.
    pub(crate) fn steady(calls: u64, methods: &Methods) -> Self {
        let config = ClientConfig { opens_streams: true, ..ClientConfig::new(SERVICE) };
        let clients = vec![ClientSlot { config, clock: Clock::ACCURATE }];
        let server = |owner| ServerSlot {
            config: ServerConfig::new(SERVICE),
            clock: Clock::ACCURATE,
            registrations: vec![methods.served(owner)],
        };
        let servers = vec![server(true), server(false)];
        let start = START + Duration::from_secs(1);
        let acts = (0..calls).map(|call| (start + GRAIN * call as u32, EngineAct::Call(0))).collect();
        let calm = Time::ZERO;
        let probe = start + GRAIN * calls as u32 + SETTLE;
        let (shutdown, calls_during_shutdown) = (probe + PROBE, Vec::new());
        Self {
            clients,
            servers,
            acts,
            calm,
            reset_clocks: calm,
            probe,
            shutdown,
            calls_during_shutdown,
            end: shutdown + UNTIL_EMPTY,
        }
    }
}

fn draw_acts(
    rng: &mut Rng,
    clients: usize,
    servers: usize,
    uses: u64,
    span: u64,
    jumps: u64,
) -> Vec<(Time, EngineAct)> {
    let moment = |rng: &mut Rng| START + rng.grains(0..span);
    let mut acts: Vec<_> = (0..uses).map(|_| (moment(rng), EngineAct::Use(rng.index(clients)))).collect();
    let mut some = |rng: &mut Rng, permille, act: &dyn Fn(&mut Rng) -> EngineAct| {
        while rng.chance(permille) {
            acts.push((moment(rng), act(rng)));
        }
    };
    some(rng, 850, &|rng| EngineAct::Publish(rng.index(servers)));
    some(rng, 300, &|rng| {
        EngineAct::StopClient(rng.index(clients), rng.pick(&[Fault::Close, Fault::Close, Fault::Crash]))
    });
    some(rng, 450, &|rng| {
        EngineAct::StopServer(
            rng.index(servers),
            rng.pick(&[Fault::Drain, Fault::Drain, Fault::Kill, Fault::Crash]),
        )
    });
    some(rng, 200, &|rng| {
        EngineAct::Cut(rng.pick(&[Fault::Partition, Fault::OneWayPartition]), rng.grains(20..2000))
    });
    some(rng, 250, &|rng| EngineAct::Clog(rng.grains(20..1200)));
    some(rng, 250, &|rng| EngineAct::Pause(rng.grains(20..2000)));
    some(rng, jumps, &|rng| {
        let latest = rng.pick(&[40, 8000, 8000]);
        let nanos = rng.grains(1..latest).as_nanos() as i64;
        EngineAct::Jump(if rng.chance(500) { nanos } else { -nanos })
    });
    acts
}

/// Limits that a run reaches, but that leave room for the fresh calls at its end.
#[derive(Clone, Copy)]
struct TightLimits {
    requests: usize,
    remembered: usize,
}

impl TightLimits {
    fn draw(rng: &mut Rng, clocks: &Clocks, clients: usize) -> Self {
        if clocks.jumps > 0 {
            // A request that was accepted by a slow clock is remembered for longer.
            return Self { requests: 160, remembered: 400 };
        }
        let fresh = clients * FRESH_REQUESTS;
        Self {
            requests: rng.pick(&[fresh + SPARE_REQUESTS, 160]),
            remembered: fresh + CALLS_DURING_SHUTDOWN + SPARE_REQUESTS,
        }
    }
}

fn client_config(rng: &mut Rng, streams: StreamConfig, tight: Option<TightLimits>) -> ClientConfig {
    let limits = |tight: TightLimits| ClientLimits {
        calls: rng.pick(&[10, 64]),
        bids_per_call: 8,
        responses_per_call: 8,
        updates_per_subscription: 2,
        streams: tight_streams(rng, tight.remembered),
        ..ClientLimits::DEFAULT
    };
    let limits = tight.map_or(ClientLimits::DEFAULT, limits);
    ClientConfig {
        affinity_timeout: rng.pick(&[Duration::from_secs(1), Duration::from_millis(100), Duration::ZERO]),
        opens_streams: true,
        streams,
        limits,
        ..ClientConfig::new(SERVICE)
    }
}

fn server_config(
    rng: &mut Rng,
    streams: StreamConfig,
    tight: Option<TightLimits>,
    skew: u64,
) -> ServerConfig {
    let limits = |tight: TightLimits| ServerLimits {
        requests: tight.requests,
        remembered: tight.remembered,
        cached_clients: 2,
        updates: 4,
        streams: tight_streams(rng, tight.remembered),
        ..ServerLimits::DEFAULT
    };
    let limits = tight.map_or(ServerLimits::DEFAULT, limits);
    ServerConfig {
        skew_allowance: GRAIN * u32::try_from(rng.pick(&[0, skew, 2 * skew])).expect("skews are short"),
        drain_timeout: rng.pick(&[Duration::from_secs(3), Duration::from_millis(20)]),
        linger: rng.pick(&[Duration::from_secs(1), Duration::from_millis(20)]),
        concurrency: rng.pick(&[None, None, Some(60)]),
        streams,
        limits,
        ..ServerConfig::new(SERVICE)
    }
}

fn tight_streams(rng: &mut Rng, remembered: usize) -> StreamLimits {
    let streams = rng.pick(&[32, 60]);
    StreamLimits {
        streams,
        unread_per_stream: 2,
        held_per_stream: 2,
        held: rng.pick(&[3, ENOUGH_HELD]),
        sends_per_stream: 2,
        waiting_per_stream: 6,
        // At most twelve fresh streams send six messages each.
        remembered: remembered + 100,
        ..StreamLimits::DEFAULT
    }
}

/// Registers all methods together, or each alone.
fn registrations(rng: &mut Rng, routes: Vec<Route>) -> Vec<Vec<Route>> {
    if rng.chance(500) { vec![routes] } else { routes.into_iter().map(|route| vec![route]).collect() }
}

/// The errors of the clocks of a run.
struct Clocks {
    /// Half of the largest skew between two nodes, in grains.
    skew: u64,
    /// The largest drift, in millionths.
    drift: u64,
    /// The probability of each further jump, in permille.
    jumps: u64,
}

impl Clocks {
    fn draw(rng: &mut Rng) -> Self {
        Self {
            skew: rng.pick(&[0, 0, 40, 1200]),
            drift: rng.pick(&[0, 0, 100, 5000]),
            jumps: rng.pick(&[0, 0, 960]),
        }
    }

    fn one(&self, rng: &mut Rng) -> Clock {
        let sign = |rng: &mut Rng| if rng.chance(500) { 1 } else { -1 };
        let off = sign(rng) * rng.grains(0..self.skew + 1).as_nanos() as i64;
        let wall = WallTime::from_unix_nanos(EPOCH.as_unix_nanos() + off);
        let drift = sign(rng) as i32 * rng.within(0..self.drift + 1) as i32;
        Clock { monotonic: rng.grains(0..4_000_000_000), wall, drift, jump_nanos: 0 }
    }
}
