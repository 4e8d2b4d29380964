//! The frame: what is published, a message of the protocol in its envelope.

use alloc::vec::Vec;

use bytes::Bytes;

use crate::request::RequestDraft;
use crate::response::ResponseDraft;
use crate::stream::StreamDraft;
use crate::wire::{Decode, Encode, Fault, Reader, Sink, WireType, varint_len};
use crate::{
    Any, ClaimRequest, ClaimResponse, DecodeError, DecodeErrorKind, FrameLimits, Request, Response, Stream,
    Text,
};

/// The type URLs of the protocol's own messages, all with one prefix.
const PREFIX: &str = "type.googleapis.com/internal.";
const REQUEST: &str = "type.googleapis.com/internal.Request";
const RESPONSE: &str = "type.googleapis.com/internal.Response";
const CLAIM_REQUEST: &str = "type.googleapis.com/internal.ClaimRequest";
const CLAIM_RESPONSE: &str = "type.googleapis.com/internal.ClaimResponse";
const STREAM: &str = "type.googleapis.com/internal.Stream";

/// The first bytes of gzip, with which no protobuf message begins.
const GZIP: &[u8] = &[0x1f, 0x8b];

/// What is published on a channel (PROTOCOL section 1).
///
/// An in-process bus hands frames over as they are; any other bus carries them encoded in an envelope.
#[derive(Clone, Debug, PartialEq)]
pub enum Frame {
    /// A call.
    Request(Request),
    /// An answer.
    Response(Response),
    /// A bid.
    ClaimRequest(ClaimRequest),
    /// A grant.
    ClaimResponse(ClaimResponse),
    /// A frame of a stream.
    Stream(Stream),
    /// A message that is not the protocol's own: an update of a subscription, or a type unknown here.
    Other(Any),
    /// An envelope that was not looked into. Published as it is; whoever receives one decodes it, and learns from
    /// [`Frame::decode`] what is wrong with it, if anything is.
    Raw(Bytes),
}

impl Frame {
    /// The frame as it is published, in an envelope that names `channel` (the *local* name on NATS, else empty).
    ///
    /// Written in one pass into one buffer of the right size.
    pub fn encode(&self, channel: &str) -> Bytes {
        match self {
            Frame::Request(request) => envelope(REQUEST, request, channel),
            Frame::Response(response) => envelope(RESPONSE, response, channel),
            Frame::ClaimRequest(claim) => envelope(CLAIM_REQUEST, claim, channel),
            Frame::ClaimResponse(claim) => envelope(CLAIM_RESPONSE, claim, channel),
            Frame::Stream(stream) => envelope(STREAM, stream, channel),
            Frame::Other(Any { type_url, value }) => envelope(type_url.as_str(), &Value(value), channel),
            Frame::Raw(bytes) => bytes.clone(),
        }
    }

    /// Decodes a published frame, and gives the channel that its envelope names.
    ///
    /// Payloads and long texts other than ids are slices of `bytes`. A message of a type that is not the protocol's own is a
    /// [`Frame::Other`]; the result is never a [`Frame::Raw`].
    ///
    /// # Errors
    ///
    /// When `bytes` is no envelope, its value not a message of the type that it names, or beyond a limit.
    pub fn decode(bytes: &Bytes, limits: &FrameLimits) -> Result<(Frame, Text), DecodeError> {
        let refuse = |field, kind| Err(DecodeError { message: Envelope::NAME, field, kind });
        if bytes.len() > limits.frame_bytes {
            let (limit, unit) = (limits.frame_bytes, "bytes of a frame");
            return refuse(0, DecodeErrorKind::OverLimit { limit, unit });
        }
        let envelope = Reader::new(bytes, 0..bytes.len(), limits);
        let Envelope { type_url, value, channel } = envelope.message()?;
        if bytes[value.clone()].starts_with(GZIP) {
            return refuse(2, DecodeErrorKind::Compressed);
        }
        let message = Reader::new(bytes, value.clone(), limits);
        let frame = match own_type(&bytes[type_url.clone()]) {
            b"Request" => Frame::Request(message.message::<RequestDraft>()?.into()),
            b"Response" => Frame::Response(message.message::<ResponseDraft>()?.into()),
            b"ClaimRequest" => Frame::ClaimRequest(message.message()?),
            b"ClaimResponse" => Frame::ClaimResponse(message.message()?),
            b"Stream" => Frame::Stream(message.message::<StreamDraft>()?.into()),
            _ => match Text::slice(bytes, type_url) {
                Some(type_url) => Frame::Other(Any { type_url, value: bytes.slice(value) }),
                None => return refuse(1, DecodeErrorKind::NotUtf8),
            },
        };
        Ok((frame, channel))
    }

    /// What kind of message it is, for messages to people: the protobuf name of the protocol's own messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Frame::Request(_) => &REQUEST[PREFIX.len()..],
            Frame::Response(_) => &RESPONSE[PREFIX.len()..],
            Frame::ClaimRequest(_) => &CLAIM_REQUEST[PREFIX.len()..],
            Frame::ClaimResponse(_) => &CLAIM_RESPONSE[PREFIX.len()..],
            Frame::Stream(_) => &STREAM[PREFIX.len()..],
            Frame::Other(_) => "other",
            Frame::Raw(_) => "raw",
        }
    }
}

/// The name of a message of the protocol's own; empty for any other. Whatever stands before the last slash does not matter.
fn own_type(type_url: &[u8]) -> &[u8] {
    if let Some(name) = type_url.strip_prefix(PREFIX.as_bytes()) {
        return name;
    }
    let name = type_url.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    name.strip_prefix(b"internal.").unwrap_or_default()
}

/// Writes `internal.Msg`: type_url 1, value 2, channel 3.
fn envelope(type_url: &str, message: &impl Encode, channel: &str) -> Bytes {
    let value = message.encoded_len();
    let string =
        |text: &str| if text.is_empty() { 0 } else { 1 + varint_len(text.len() as u64) + text.len() };
    let field = if value == 0 { 0 } else { 1 + varint_len(value as u64) + value };
    let mut out = Vec::with_capacity(string(type_url) + field + string(channel));
    out.bytes(1, type_url.as_bytes());
    if value > 0 {
        out.tag(2, WireType::Bytes);
        out.varint(value as u64);
        message.encode(&mut out);
    }
    out.bytes(3, channel.as_bytes());
    Bytes::from(out)
}

/// A message that is encoded already.
struct Value<'a>(&'a Bytes);

impl Encode for Value<'_> {
    fn encode(&self, out: &mut impl Sink) {
        out.raw(self.0);
    }
}

/// `internal.Msg` as it is read: what it holds is looked into once its type is known.
#[derive(Default)]
struct Envelope {
    type_url: core::ops::Range<usize>,
    value: core::ops::Range<usize>,
    channel: Text,
}

impl Decode for Envelope {
    const NAME: &'static str = "internal.Msg";

    fn field(&mut self, field: u32, wire: WireType, reader: &mut Reader<'_>) -> Result<(), Fault> {
        match field {
            1 => self.type_url = reader.range(wire)?,
            2 => self.value = reader.range(wire)?,
            3 => self.channel = reader.text(wire)?,
            _ => reader.skip(field, wire)?,
        }
        Ok(())
    }
}
