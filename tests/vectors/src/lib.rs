//! Loads the recordings of Go peers; see `README.md`.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// The recorded conversations of one version of Go psrpc on one bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recording {
    /// The version of Go psrpc.
    pub version: &'static str,
    /// The bus.
    pub bus: Bus,
    lines: &'static str,
}

/// The bus of a recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bus {
    /// Redis 7.0.
    Redis,
    /// NATS 2.9.
    Nats,
}

macro_rules! recordings {
    ($($version:literal)*) => {
        /// All recordings, in the order of their versions.
        pub const RECORDINGS: &[Recording] = &[$(
            Recording {
                version: $version,
                bus: Bus::Redis,
                lines: include_str!(concat!("../data/conversations-go-", $version, "-redis.jsonl")),
            },
            Recording {
                version: $version,
                bus: Bus::Nats,
                lines: include_str!(concat!("../data/conversations-go-", $version, "-nats.jsonl")),
            },
        )*];
    };
}

recordings! { "v0.6.0" "v0.7.2" "v0.7.5" "v0.8.2" }

impl Recording {
    /// Returns the conversations, in the order of the recording.
    pub fn conversations(&self) -> Vec<Conversation> {
        lines(self.lines)
    }
}

/// One conversation between Go peers.
#[derive(Clone, Debug, Deserialize)]
pub struct Conversation {
    /// The name, which is the same in every recording.
    pub id: String,
    /// A description.
    pub what: String,
    /// The clients and servers.
    pub participants: Vec<Participant>,
    /// The subscriptions of the clients and servers.
    pub subscriptions: Vec<Subscription>,
    /// The result that the caller got.
    pub outcome: Value,
    /// The frames that the bus carried, in order.
    pub frames: Vec<Event>,
}

/// A client or server of a conversation.
#[derive(Clone, Debug, Deserialize)]
pub struct Participant {
    /// `client` or `server`.
    pub role: String,
    /// A short name.
    pub label: String,
    /// The id on the wire.
    pub id: String,
    /// The properties that differ from the defaults.
    #[serde(default)]
    pub note: Note,
}

/// Properties of a client or server that differ from the defaults.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub struct Note {
    /// The affinity that the server bids; negative if it makes no bid.
    pub affinity: Option<f32>,
    /// True if the server runs queue requests without waiting for a grant.
    #[serde(default)]
    pub skip_claim: bool,
}

/// A subscription of a conversation.
#[derive(Clone, Debug, Deserialize)]
pub struct Subscription {
    /// `client:ID` or `server:ID`.
    pub by: String,
    /// The channel (Redis) or subject (NATS).
    pub channel: String,
    /// The NATS queue group.
    pub queue_group: Option<String>,
}

/// An event on the bus.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// A frame was published.
    Publish(Box<Publish>),
    /// A server tried to lock a queue request (Redis).
    Lock(Lock),
}

/// A published frame.
#[derive(Clone, Debug, Deserialize)]
pub struct Publish {
    /// Microseconds since the start of the conversation.
    pub at_us: u64,
    /// `client:ID`, `server:ID`, or `recorder` for frames that the recorder published itself.
    pub from: String,
    /// The channel (Redis) or subject (NATS).
    pub channel: String,
    /// The local channel in the envelope: on NATS, and on Redis since v0.8.0.
    #[serde(default)]
    pub local: String,
    /// The whole frame, as hex.
    pub hex: String,
    /// The type URL of the envelope; empty if it has none.
    pub type_url: String,
    /// The compression that the envelope declares.
    #[serde(default)]
    pub compression: i32,
    /// True if the value is deliberately undecodable.
    #[serde(default)]
    pub undecodable: bool,
    /// The fields of the message, decompressed: bytes as hex, int64 as decimal strings.
    #[serde(default)]
    pub fields: Value,
    /// The user's message, if it could be decoded.
    pub payload: Option<Value>,
}

impl Publish {
    /// Returns the whole frame.
    pub fn bytes(&self) -> Vec<u8> {
        hex(&self.hex)
    }
}

/// An attempt to lock a queue request.
#[derive(Clone, Debug, Deserialize)]
pub struct Lock {
    /// Microseconds since the start of the conversation.
    pub at_us: u64,
    /// `server:ID` or `client:ID`.
    pub from: String,
    /// The index of the frame that is locked.
    pub frame: usize,
    /// The Redis command.
    pub args: Vec<String>,
    /// True if the peer got the lock.
    pub won: bool,
}

/// A row of `channel-names.jsonl`.
#[derive(Clone, Debug, Deserialize)]
pub struct ChannelRow {
    /// The service.
    pub service: String,
    /// The method.
    pub method: String,
    /// The parts of the topic.
    pub topic: Vec<String>,
    /// True if the method is queue-routed.
    pub queue: bool,
    /// A client id.
    pub id: String,
    /// The names of the channels, by kind of channel.
    #[serde(flatten)]
    pub channels: BTreeMap<String, Value>,
}

impl ChannelRow {
    /// Returns the legacy, server and local names of one kind of channel.
    pub fn names(&self, kind: &str) -> (&str, &str, &str) {
        let name = |form| self.channels[kind][form].as_str().expect("a name");
        (name("legacy"), name("server"), name("local"))
    }
}

/// A row of `wire-names.jsonl`.
#[derive(Clone, Debug, Deserialize)]
pub struct WireNameRow {
    /// The name in the .proto.
    pub proto: String,
    /// The name on the wire.
    pub wire: String,
}

/// A row of `method-flags.jsonl`.
#[derive(Clone, Debug, Deserialize)]
#[allow(missing_docs, reason = "Go's own names")]
pub struct MethodFlagsRow {
    pub service: String,
    pub proto: String,
    pub wire: String,
    pub affinity: bool,
    pub multi: bool,
    pub require_claim: bool,
    pub queue: bool,
}

/// A row of `error-codes.jsonl`.
#[derive(Clone, Debug, Deserialize)]
pub struct ErrorCodeRow {
    /// The code.
    pub code: String,
    /// Its HTTP status.
    pub http: u16,
    /// The number of its gRPC code.
    pub grpc_number: i32,
    /// Its Twirp code.
    pub twirp: String,
    /// True if Go's retry middleware retries it by default.
    pub retried_by_default: bool,
}

/// A row of `error-codes-from-grpc.jsonl`.
#[derive(Clone, Debug, Deserialize)]
pub struct FromGrpcRow {
    /// The number of a gRPC code.
    pub grpc_number: i32,
    /// The code that Go maps it to.
    pub code: String,
}

/// A row of `fixed-errors.jsonl`.
#[derive(Clone, Debug, Deserialize)]
pub struct FixedErrorRow {
    /// Go's name for the error.
    pub name: String,
    /// Its code.
    pub code: String,
    /// Its text.
    pub text: String,
}

/// A row of `selection.jsonl`: one selection of a server by Go. Times are in milliseconds since its
/// start.
#[derive(Clone, Debug, Deserialize)]
pub struct SelectionRow {
    /// A description.
    pub what: String,
    /// The options of the selection.
    pub options: SelectionOptions,
    /// The deadline of the call.
    pub deadline_ms: u64,
    /// The bids and responses that arrived.
    pub events: Vec<SelectionEvent>,
    /// The result of the selection.
    pub result: SelectionResult,
}

/// Options of a selection; 0 means none.
#[derive(Clone, Debug, Deserialize)]
#[allow(missing_docs, reason = "the protocol's own names")]
pub struct SelectionOptions {
    pub minimum: f32,
    pub maximum: f32,
    pub accept_first: bool,
    pub affinity_timeout_ms: u64,
    pub short_circuit_ms: u64,
    /// The bid that the selection function chooses: `lowest`, `first`, `last`, `nothing` or `fail`;
    /// empty for no function.
    pub selection_func: String,
}

/// An event during a selection: a bid, an error response, or a successful response.
#[derive(Clone, Debug, Deserialize)]
pub struct SelectionEvent {
    /// The time of the event.
    pub at_ms: u64,
    /// The server that bids.
    pub server: Option<String>,
    /// The affinity of the bid: a number, or `NaN`, `+Inf`, `-Inf`.
    pub affinity: Option<Value>,
    /// The text of an error response.
    pub error: Option<String>,
    /// The code of an error response.
    pub error_code: Option<String>,
    /// True for a successful response.
    #[serde(default)]
    pub success: bool,
}

/// The result of a selection.
#[derive(Clone, Debug, Deserialize)]
pub struct SelectionResult {
    /// The selected server.
    pub server: Option<String>,
    /// The text of the error.
    pub error: Option<String>,
    /// The code of the error.
    pub error_code: Option<String>,
    /// True if the selection function was called.
    pub selection_func_asked: bool,
    /// The bids that it was called with.
    #[serde(default)]
    pub selection_func_saw: Vec<SelectionClaim>,
    /// The duration in each of three runs.
    pub took_ms: Vec<u64>,
}

/// A bid as the selection function saw it.
#[derive(Clone, Debug, Deserialize)]
#[allow(missing_docs, reason = "the protocol's own names")]
pub struct SelectionClaim {
    pub server: String,
    pub affinity: f32,
}

/// A row of `retry-schedules.jsonl`.
#[derive(Clone, Debug, Deserialize)]
pub struct RetryScheduleRow {
    /// A description of the attempts' results.
    pub what: String,
    /// The options of Go's retry middleware.
    pub options: RetryOptions,
    /// The timeout of each attempt; `None` for the client's default.
    pub attempt_timeouts_ms: Vec<Option<u64>>,
    /// The code of the caller's error, if it got an error with a code.
    pub final_code: Option<String>,
    /// The text of the caller's error, if it got one.
    pub final_error: Option<String>,
}

/// The options of Go's retry middleware.
#[derive(Clone, Copy, Debug, Deserialize)]
#[allow(missing_docs, reason = "Go's own names")]
pub struct RetryOptions {
    pub max_attempts: u32,
    pub timeout_ms: u64,
    pub backoff_ms: u64,
}

macro_rules! tables {
    ($($(#[$doc:meta])* $name:ident: $row:ty = $file:literal;)*) => {
        $($(#[$doc])* pub fn $name() -> Vec<$row> {
            lines(include_str!(concat!("../data/", $file)))
        })*
    };
}

tables! {
    /// The rows of `channel-names.jsonl`.
    channel_names: ChannelRow = "channel-names.jsonl";
    /// The rows of `wire-names.jsonl`.
    wire_names: WireNameRow = "wire-names.jsonl";
    /// The rows of `method-flags.jsonl`.
    method_flags: MethodFlagsRow = "method-flags.jsonl";
    /// The rows of `error-codes.jsonl`.
    error_codes: ErrorCodeRow = "error-codes.jsonl";
    /// The rows of `error-codes-from-grpc.jsonl`.
    error_codes_from_grpc: FromGrpcRow = "error-codes-from-grpc.jsonl";
    /// The rows of `fixed-errors.jsonl`.
    fixed_errors: FixedErrorRow = "fixed-errors.jsonl";
    /// The rows of `retry-schedules.jsonl`.
    retry_schedules: RetryScheduleRow = "retry-schedules.jsonl";
    /// The rows of `selection.jsonl`.
    selections: SelectionRow = "selection.jsonl";
}

/// Reverses the escaping of a part of a channel name.
///
/// # Panics
///
/// Panics if an escape sequence is malformed.
pub fn unescaped(part: &str) -> String {
    let mut plain = String::new();
    let mut rest = part;
    while let Some(at) = rest.find("u+").into_iter().chain(rest.find("U+")).min() {
        let end = at + if rest[at..].starts_with('u') { 6 } else { 10 };
        let code = u32::from_str_radix(&rest[at + 2..end], 16).expect("hex digits");
        plain.push_str(&rest[..at]);
        plain.push(char::from_u32(code).expect("a character"));
        rest = &rest[end..];
    }
    plain + rest
}

/// Decodes a hex string.
pub fn hex(hex: &str) -> Vec<u8> {
    let digit = |digit: u8| char::from(digit).to_digit(16).expect("a hex digit") as u8;
    hex.as_bytes().chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

fn lines<T: DeserializeOwned>(text: &str) -> Vec<T> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line}")))
        .collect()
}
