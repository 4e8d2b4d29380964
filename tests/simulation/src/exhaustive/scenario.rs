//! Scenarios: one client, two servers, and the one call whose every schedule is looked at.

use std::time::Duration;

use psrpc_engine::proto::{ErrorCode, ErrorResponse, Frame, MethodProperties, Routing, Text};
use psrpc_engine::{ClientConfig, Now, Route, ServerConfig, StreamConfig, Time, WallTime};

/// The client's place among the nodes.
pub(super) const CLIENT: usize = 0;

/// How many nodes there are: the client, and then the servers.
pub(super) const NODES: usize = 1 + SERVERS;

/// How many servers there are.
pub(super) const SERVERS: usize = 2;

/// All times of a scenario are a whole number of these, so that different histories meet at the
/// same moments. It is what a table of remembered requests rounds to.
const UNIT: Duration = Duration::from_nanos(1 << 30);

/// How long a call, a message and an idle stream last.
pub(super) const TIMEOUT: Duration = Duration::from_nanos(3 << 30);

/// When a call expires: it is made at once.
pub(super) const EXPIRY: Time = Time::from_nanos(3 << 30);

/// The server that publishes an update.
pub(super) const PUBLISHER: usize = 0;

/// What the wall clocks show in the beginning: a request that is sent then is forgotten the moment
/// it expires.
const EPOCH: WallTime = WallTime::from_unix_nanos(((1 << 30) - 1) + (1_672_000_000 << 30));

const SERVICE: &str = "Hats";

/// What is called, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A claimed call on a queue.
    Queue,
    /// The same, and its server runs it without waiting for a grant.
    Election,
    /// A claimed call that both servers see; the second bids more.
    Affinity,
    /// A call without a claim, of a method that one server serves.
    SingleServer,
    /// A call that both servers answer.
    Multi,
    /// A stream that both servers bid for. Its client sends a message, its server answers with one,
    /// then the client closes it.
    Stream,
    /// The same with the client's message alone.
    Upload,
    /// The same with a message of the server alone, which it sends at once.
    Download,
    /// A subscription, and an update that a server publishes.
    Update,
}

impl Kind {
    fn is_stream(self) -> bool {
        self.sends_to_server() || self.sends_to_client()
    }

    pub(super) fn sends_to_server(self) -> bool {
        matches!(self, Kind::Stream | Kind::Upload)
    }

    pub(super) fn sends_to_client(self) -> bool {
        matches!(self, Kind::Stream | Kind::Download)
    }
}

/// How a bus that is not what it should be alters what it brings to a node: the client, 0, or a
/// server, 1 or 2.
pub type Spoil = fn(usize, &Frame) -> Vec<Frame>;

/// One client, two servers and one call.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// What is called.
    pub kind: Kind,
    /// Whether the caller cancels the call, at any time.
    pub cancels: bool,
    /// How many frames are lost or doubled, and servers crash, at most.
    pub faults: u8,
    /// What else the bus does, where a test wants to see it found out.
    pub spoil: Option<Spoil>,
}

impl Scenario {
    /// A scenario of a kind, with so many faults at most.
    pub const fn new(kind: Kind, faults: u8) -> Self {
        Self { kind, cancels: false, faults, spoil: None }
    }

    /// The same, in which the caller cancels the call.
    pub const fn canceled(self) -> Self {
        Self { cancels: true, ..self }
    }

    /// The same, on a bus that alters what it brings.
    pub const fn spoiled(self, spoil: Spoil) -> Self {
        Self { spoil: Some(spoil), ..self }
    }

    /// The scenarios of the command, with at most two faults each: one for each kind of call, and
    /// one more for those that can be canceled. A stream with messages both ways has one fault
    /// at most, since with two it takes [minutes](Self::large).
    pub fn all() -> Vec<Self> {
        let calls = [Kind::Queue, Kind::Election, Kind::Affinity, Kind::SingleServer];
        let calls = calls.map(|kind| Self::new(kind, 2)).into_iter();
        let mut scenarios: Vec<_> = calls.flat_map(|scenario| [scenario, scenario.canceled()]).collect();
        let others = [Kind::Multi, Kind::Update, Kind::Upload, Kind::Download];
        scenarios.extend(others.map(|kind| Self::new(kind, 2)));
        scenarios.extend([Self::new(Kind::Upload, 2).canceled(), Self::new(Kind::Stream, 1)]);
        scenarios
    }

    /// A stream with messages both ways and two faults: twenty million states, and two gigabytes to
    /// hold those that are equally far.
    pub const fn large() -> Self {
        Self::new(Kind::Stream, 2)
    }

    /// What people call it.
    pub fn name(&self) -> String {
        let name = match self.kind {
            Kind::Queue => "queue",
            Kind::Election => "election",
            Kind::Affinity => "affinity",
            Kind::SingleServer => "single-server",
            Kind::Multi => "multi",
            Kind::Stream => "stream, both ways",
            Kind::Upload => "stream, to the server",
            Kind::Download => "stream, to the client",
            Kind::Update => "update",
        };
        if self.cancels { format!("{name}, canceled") } else { name.to_owned() }
    }

    pub(super) fn route(&self) -> Route {
        let (routing, require_claim) = match self.kind {
            Kind::Queue | Kind::Election | Kind::Stream | Kind::Upload | Kind::Download => {
                (Routing::Queue, true)
            }
            Kind::Affinity => (Routing::Affinity, true),
            Kind::SingleServer => (Routing::Queue, false),
            Kind::Multi | Kind::Update => (Routing::Multi, false),
        };
        let properties = MethodProperties { routing, require_claim };
        let route = if self.kind.is_stream() { Route::stream } else { Route::new };
        route(SERVICE, "Fit", properties, &[] as &[&str]).expect("the names are sound")
    }

    pub(super) fn client(&self) -> ClientConfig {
        ClientConfig {
            id: "CLI_1".into(),
            timeout: TIMEOUT,
            short_circuit_timeout: UNIT,
            affinity_timeout: 2 * UNIT,
            opens_streams: self.kind.is_stream(),
            streams: streams(),
            ..ClientConfig::new(SERVICE)
        }
    }

    pub(super) fn server(&self, server: usize) -> ServerConfig {
        let id = format!("SRV_{}", server + 1).into();
        ServerConfig { id, timeout: TIMEOUT, streams: streams(), ..ServerConfig::new(SERVICE) }
    }

    /// Whether a server serves the route.
    pub(super) fn serves(&self, server: usize) -> bool {
        match self.kind {
            Kind::SingleServer => server == 0,
            Kind::Update => false,
            _ => true,
        }
    }

    /// What a server bids.
    pub(super) fn affinity(server: usize) -> f32 {
        [0.5, 1.0][server]
    }

    /// What a server answers, and no other: one succeeds, the other fails.
    pub(super) fn answer(server: usize) -> Result<&'static str, ErrorResponse> {
        match server {
            0 => Ok("a hat of the first"),
            _ => Err(ErrorResponse::new(ErrorCode::NotFound, "no hat at the second")),
        }
    }
}

/// With an idle timeout, so that a stream ends although its close is lost.
fn streams() -> StreamConfig {
    StreamConfig { idle_timeout: Some(TIMEOUT), ..StreamConfig::DEFAULT }
}

/// The server of an id.
pub(super) fn server_of(id: &Text) -> Option<usize> {
    (0..SERVERS).find(|server| id.as_str().strip_prefix("SRV_") == Some(&(server + 1).to_string()))
}

/// What people call a node.
pub(super) fn name(node: usize) -> String {
    if node == CLIENT { "the client".to_owned() } else { format!("server {node}") }
}

/// What the clocks of every node show at a time.
pub(super) fn clocks(time: Time) -> Now {
    Now { time, wall: EPOCH + time.since(Time::ZERO) }
}
