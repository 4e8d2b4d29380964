//! Scenarios: one client, two servers and one call. The search runs every schedule of a scenario.

use std::time::Duration;

use psrpc_engine::proto::{ErrorCode, ErrorResponse, Frame, MethodProperties, Routing, Text};
use psrpc_engine::{ClientConfig, Now, Route, ServerConfig, StreamConfig, Time, WallTime};

/// The index of the client among the nodes.
pub(super) const CLIENT: usize = 0;

/// The number of nodes: the client, followed by the servers.
pub(super) const NODES: usize = 1 + SERVERS;

/// The number of servers.
pub(super) const SERVERS: usize = 2;

/// All times of a scenario are multiples of this unit, so that different histories meet at the same
/// moments. It is the resolution of the table of remembered requests.
const UNIT: Duration = Duration::from_nanos(1 << 30);

/// The timeout of a call, a message and an idle stream.
pub(super) const TIMEOUT: Duration = Duration::from_nanos(3 << 30);

/// The expiry of the call, which is made at the start.
pub(super) const EXPIRY: Time = Time::from_nanos(3 << 30);

/// The index of the server that publishes an update.
pub(super) const PUBLISHER: usize = 0;

/// The reading of the wall clocks at the start. It is chosen so that a request sent then is
/// forgotten at the moment when it expires.
const EPOCH: WallTime = WallTime::from_unix_nanos(((1 << 30) - 1) + (1_672_000_000 << 30));

const SERVICE: &str = "Hats";

/// The kind of call of a scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A claimed call on a queue.
    Queue,
    /// A claimed call on a queue, whose server skips the claim.
    SkipClaim,
    /// A claimed call that both servers see. The second bids more.
    Affinity,
    /// A call of a single-server method.
    SingleServer,
    /// A multi call to both servers.
    Multi,
    /// A stream that both servers bid for. The client sends a message, the server replies with one,
    /// and the client closes the stream.
    Stream,
    /// A stream with a message of the client only.
    Upload,
    /// A stream with a message of the server only, sent at once.
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

/// A function by which a defective bus alters a frame to a node (0: the client, 1 and 2: the
/// servers). It returns the frames that the node receives instead.
pub type Spoil = fn(usize, &Frame) -> Vec<Frame>;

/// One client, two servers and one call.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// The kind of call.
    pub kind: Kind,
    /// Whether the caller cancels the call, at any time.
    pub cancels: bool,
    /// The maximum number of faults: lost frames, duplicated frames and crashed servers.
    pub faults: u8,
    /// How the bus alters frames. Tests set this to check that the oracle notices.
    pub spoil: Option<Spoil>,
}

impl Scenario {
    /// Returns a scenario of a kind, with at most `faults` faults.
    pub const fn new(kind: Kind, faults: u8) -> Self {
        Self { kind, cancels: false, faults, spoil: None }
    }

    /// Returns the same scenario, in which the caller cancels the call.
    pub const fn canceled(self) -> Self {
        Self { cancels: true, ..self }
    }

    /// Returns the same scenario, on a bus that alters frames.
    pub const fn spoiled(self, spoil: Spoil) -> Self {
        Self { spoil: Some(spoil), ..self }
    }

    /// Returns the scenarios of the command, with at most two faults each: one for each kind of
    /// call, and a canceled one for each kind of unary call and for `Upload`. A stream with
    /// messages both ways has at most one fault, since two take [minutes](Self::large).
    pub fn all() -> Vec<Self> {
        let calls = [Kind::Queue, Kind::SkipClaim, Kind::Affinity, Kind::SingleServer];
        let calls = calls.map(|kind| Self::new(kind, 2)).into_iter();
        let mut scenarios: Vec<_> = calls.flat_map(|scenario| [scenario, scenario.canceled()]).collect();
        let others = [Kind::Multi, Kind::Update, Kind::Upload, Kind::Download];
        scenarios.extend(others.map(|kind| Self::new(kind, 2)));
        scenarios.extend([Self::new(Kind::Upload, 2).canceled(), Self::new(Kind::Stream, 1)]);
        scenarios
    }

    /// Returns the scenario of a stream with messages both ways and two faults. It has twenty
    /// million states and needs two gigabytes of memory.
    pub const fn large() -> Self {
        Self::new(Kind::Stream, 2)
    }

    /// Returns the name for reports.
    pub fn name(&self) -> String {
        let name = match self.kind {
            Kind::Queue => "queue",
            Kind::SkipClaim => "skip claim",
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
            Kind::Queue | Kind::SkipClaim | Kind::Stream | Kind::Upload | Kind::Download => {
                (Routing::Queue, true)
            }
            Kind::Affinity => (Routing::Affinity, true),
            Kind::SingleServer => (Routing::Queue, false),
            Kind::Multi | Kind::Update => (Routing::Multi, false),
        };
        let properties = MethodProperties { routing, require_claim };
        let route = if self.kind.is_stream() { Route::stream } else { Route::new };
        route(SERVICE, "Fit", properties, &[] as &[&str]).expect("the names are valid")
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

    /// Returns `true` if a server serves the route.
    pub(super) fn serves(&self, server: usize) -> bool {
        match self.kind {
            Kind::SingleServer => server == 0,
            Kind::Update => false,
            _ => true,
        }
    }

    /// Returns the affinity that a server bids.
    pub(super) fn affinity(server: usize) -> f32 {
        [0.5, 1.0][server]
    }

    /// Returns the response of a server, which differs from that of the other: the first succeeds,
    /// the second fails.
    pub(super) fn answer(server: usize) -> Result<&'static str, ErrorResponse> {
        match server {
            0 => Ok("a hat of the first"),
            _ => Err(ErrorResponse::new(ErrorCode::NotFound, "no hat at the second")),
        }
    }
}

/// Returns a configuration with an idle timeout, so that a stream ends even if its close is lost.
fn streams() -> StreamConfig {
    StreamConfig { idle_timeout: Some(TIMEOUT), ..StreamConfig::DEFAULT }
}

/// Returns the index of the server with an id.
pub(super) fn server_of(id: &Text) -> Option<usize> {
    (0..SERVERS).find(|server| id.as_str().strip_prefix("SRV_") == Some(&(server + 1).to_string()))
}

/// Returns the name of a node for reports.
pub(super) fn name(node: usize) -> String {
    if node == CLIENT { "the client".to_owned() } else { format!("server {node}") }
}

/// Returns the readings of every node's clocks at a time.
pub(super) fn clocks(time: Time) -> Now {
    Now { time, wall: EPOCH + time.since(Time::ZERO) }
}
