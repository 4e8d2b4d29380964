//! The plan: what a seed decides before a run begins.

use std::time::Duration;

use psrpc_engine::proto::{MethodProperties, Routing};
use psrpc_engine::{ClientConfig, Route, ServerConfig, Time, WallTime};

use crate::clock::{Clock, EPOCH};
use crate::fault::Fault;
use crate::rng::{GRAIN, Rng};

const SERVICE: &str = "Hats";

/// When the first call is made at the earliest: some clients are ready by then, others are not.
const START: Time = Time::from_nanos(20_000_000);

/// How long after the faults have stopped fresh calls are made: by then no server is on its way in or out, and no
/// frame waits behind one that was delayed.
const SETTLE: Duration = Duration::from_millis(1500);

/// How long after that every table must be empty: longer than the longest call, then the longest handler or frame
/// that is late, then the longest time that a request is remembered.
const EBB: Duration = Duration::from_secs(20);

/// Who takes part in a run, and what happens when.
pub(crate) struct Plan {
    pub(crate) clients: Vec<ClientPlan>,
    pub(crate) slots: Vec<Slot>,
    /// Which client makes a call when.
    pub(crate) calls: Vec<(Time, usize)>,
    /// Which client closes when.
    pub(crate) close: Option<(Time, usize)>,
    /// When the servers of which slots are drained or killed. Others take their places.
    pub(crate) stops: Vec<(Time, usize, Fault)>,
    /// When the faults stop.
    pub(crate) calm: Time,
    /// When fresh calls are made.
    pub(crate) probe: Time,
    /// When it is all over.
    pub(crate) end: Time,
}

pub(crate) struct ClientPlan {
    pub(crate) config: ClientConfig,
    pub(crate) clock: Clock,
}

/// A place for a server: when one leaves, the next in it has the same configuration and clocks, and an id of its own.
pub(crate) struct Slot {
    pub(crate) config: ServerConfig,
    pub(crate) clock: Clock,
    /// Its methods, as they are registered together.
    pub(crate) registrations: Vec<Vec<Route>>,
}

/// The methods of the service: queue-routed, affinity, and `single_server`.
pub(crate) fn routes() -> [Route; 3] {
    let route = |method, routing, require_claim| {
        let properties = MethodProperties { routing, require_claim };
        Route::new::<&str>(SERVICE, method, properties, &[]).expect("the names are sound")
    };
    [
        route("Fit", Routing::Queue, true),
        route("Pick", Routing::Affinity, true),
        route("OwnerFit", Routing::Queue, false),
    ]
}

impl Plan {
    pub(crate) fn draw(rng: &mut Rng) -> Self {
        // In grains, and half of the skew that is possible between two nodes.
        let skew = rng.pick(&[0, 0, 40, 1200]);
        let clients = (0..rng.within(1..5)).map(|_| ClientPlan::draw(rng, skew)).collect::<Vec<_>>();
        let slots = (0..rng.within(2..5)).map(|slot| Slot::draw(rng, skew, slot == 0)).collect::<Vec<_>>();

        let calls = rng.within(50..301);
        let span = calls * rng.pick(&[1, 8, 40]);
        let moment = |rng: &mut Rng| START + rng.grains(0..span);
        let calls = (0..calls).map(|_| (moment(rng), rng.index(clients.len()))).collect();
        // The first client stays, to make fresh calls.
        let close =
            rng.maybe(700, |rng| (moment(rng), rng.index(clients.len()))).filter(|(_, client)| *client > 0);
        let first = rng.index(slots.len());
        let second = (first + 1) % slots.len();
        let drain = rng.maybe(500, |rng| (moment(rng), first, Fault::Drain));
        let kill = rng.maybe(500, |rng| (moment(rng), second, Fault::Kill));
        let stops = drain.into_iter().chain(kill).collect();

        let calm = START + GRAIN * u32::try_from(span).expect("spans are short");
        let probe = calm + SETTLE;
        Self { clients, slots, calls, close, stops, calm, probe, end: probe + EBB }
    }
}

impl ClientPlan {
    fn draw(rng: &mut Rng, skew: u64) -> Self {
        let config = ClientConfig {
            affinity_timeout: rng.pick(&[Duration::from_secs(1), Duration::from_millis(100), Duration::ZERO]),
            ..ClientConfig::new(SERVICE)
        };
        Self { config, clock: clock(rng, skew) }
    }
}

impl Slot {
    fn draw(rng: &mut Rng, skew: u64, owner: bool) -> Self {
        let [queue, affinity, single] = routes();
        let allowance = GRAIN * u32::try_from(rng.pick(&[0, skew, 2 * skew])).expect("skews are short");
        let config = ServerConfig {
            skew_allowance: allowance,
            drain_timeout: rng.pick(&[Duration::from_secs(3), Duration::from_millis(20)]),
            ..ServerConfig::new(SERVICE)
        };
        let routes = if owner { vec![queue, affinity, single] } else { vec![queue, affinity] };
        let alone = |route| vec![route];
        let registrations =
            if rng.chance(500) { vec![routes] } else { routes.into_iter().map(alone).collect() };
        Self { config, clock: clock(rng, skew), registrations }
    }
}

/// A clock whose wall time is up to so many grains off.
fn clock(rng: &mut Rng, skew: u64) -> Clock {
    let ahead = rng.grains(0..skew + 1).as_nanos() as i64;
    let off = if rng.chance(500) { ahead } else { -ahead };
    let wall = WallTime::from_unix_nanos(EPOCH.as_unix_nanos() + off);
    Clock { monotonic: rng.grains(0..4_000_000_000), wall }
}
