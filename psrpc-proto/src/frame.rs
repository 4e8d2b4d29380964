//! The frame: what is published, a message of the protocol in its envelope.

use alloc::vec::Vec;

use bytes::Bytes;

use crate::claim::{ClaimRequestDraft, ClaimResponseDraft};
use crate::gzip;
use crate::request::RequestDraft;
use crate::response::ResponseDraft;
use crate::stream::StreamDraft;
use crate::text::Utf8;
use crate::wire::{Decode, Encode, Reader, Sink, WireFault, WireType, read, varint_len};
use crate::{
    Any, ClaimRequest, ClaimResponse, Compression, DecodeError, DecodeErrorKind, FrameLimits, Request,
    Response, Stream, Text,
};

/// The type URLs of the protocol's own messages, all with one prefix.
const PREFIX: &str = "type.googleapis.com/internal.";
const REQUEST: &str = "type.googleapis.com/internal.Request";
const RESPONSE: &str = "type.googleapis.com/internal.Response";
const CLAIM_REQUEST: &str = "type.googleapis.com/internal.ClaimRequest";
const CLAIM_RESPONSE: &str = "type.googleapis.com/internal.ClaimResponse";
const STREAM: &str = "type.googleapis.com/internal.Stream";

/// The field of `internal.Msg` that says how its value is compressed.
const COMPRESSION: u32 = 4;

/// That field's value for a value that is not compressed; left out when written.
const NONE: i32 = 0;

/// That field's value for gzip.
const GZIP: i32 = 1;

/// What is published on a channel (PROTOCOL section 1).
///
/// An in-process bus hands frames over as they are; any other bus carries them encoded in an
/// envelope.
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
    /// A message that is not the protocol's own: an update of a subscription, or a type unknown
    /// here.
    Other(Any),
    /// An envelope that was not looked into. Published as it is; whoever receives one decodes it,
    /// and learns from [`Frame::decode`] what is wrong with it, if anything is.
    Raw(Bytes),
}

impl Frame {
    /// The frame as it is published, in an envelope that names `channel`: the *local* name, on
    /// Redis as on NATS.
    ///
    /// Written in one pass into one buffer of the right size.
    pub fn encode(&self, channel: &str) -> Bytes {
        self.encode_with(channel, None)
    }

    /// As [`encode`](Self::encode), with the value compressed if `compression` asks for it and that
    /// makes it smaller.
    pub fn encode_with(&self, channel: &str, compression: Option<Compression>) -> Bytes {
        match self {
            Frame::Request(request) => envelope(REQUEST, request, channel, compression),
            Frame::Response(response) => envelope(RESPONSE, response, channel, compression),
            Frame::ClaimRequest(claim) => envelope(CLAIM_REQUEST, claim, channel, compression),
            Frame::ClaimResponse(claim) => envelope(CLAIM_RESPONSE, claim, channel, compression),
            Frame::Stream(stream) => envelope(STREAM, stream, channel, compression),
            Frame::Other(Any { type_url, value }) => {
                envelope(type_url.as_str(), &Value(value), channel, compression)
            }
            Frame::Raw(bytes) => bytes.clone(),
        }
    }

    /// How long the frame's value is, encoded and not compressed: about what a decoded frame takes
    /// in memory.
    pub fn value_len(&self) -> usize {
        match self {
            Frame::Request(request) => request.encoded_len(),
            Frame::Response(response) => response.encoded_len(),
            Frame::ClaimRequest(claim) => claim.encoded_len(),
            Frame::ClaimResponse(claim) => claim.encoded_len(),
            Frame::Stream(stream) => stream.encoded_len(),
            Frame::Other(any) => any.value.len(),
            Frame::Raw(bytes) => bytes.len(),
        }
    }

    /// Decodes a published frame, and gives the channel that its envelope names.
    ///
    /// A value that the envelope says is compressed is decompressed first, to at most
    /// [`FrameLimits::frame_bytes`]. Payloads and long texts other than ids are slices of
    /// `bytes`, or of the decompressed value. A message of a type that is not the protocol's
    /// own is a [`Frame::Other`]; the result is never a [`Frame::Raw`].
    ///
    /// # Errors
    ///
    /// When `bytes` is no envelope, when its value is not a message of the type that it names or is
    /// compressed in an unknown or damaged way, and when a limit is exceeded.
    pub fn decode(bytes: &Bytes, limits: &FrameLimits) -> Result<(Frame, Text), DecodeError> {
        if bytes.len() > limits.frame_bytes {
            let (limit, unit) = (limits.frame_bytes, "bytes of a frame");
            return Err(Envelope::refused(0, DecodeErrorKind::OverLimit { limit, unit }));
        }
        let Envelope { type_url, value, channel, compression } = read::<Envelope<'_>>(bytes, bytes, limits)?;
        let channel = Text::slice(bytes, channel);
        if compression == NONE {
            return Self::decode_value(type_url, value, bytes, bytes, channel, limits);
        }
        let value = decompress(compression, value, limits)?;
        Self::decode_value(type_url, &value, &value, bytes, channel, limits)
    }

    /// Decodes the value of an envelope: a part of `within`, as the type is one of `bytes`.
    #[inline]
    fn decode_value(
        type_url: &[u8],
        value: &[u8],
        within: &Bytes,
        bytes: &Bytes,
        channel: Text,
        limits: &FrameLimits,
    ) -> Result<(Frame, Text), DecodeError> {
        // Each makes the whole result, which saves moving the frame. Names are compared as wholes,
        // which byte strings as patterns are not.
        match own_type(type_url) {
            name if name == b"Request" => read::<RequestDraft<'_>>(within, value, limits)
                .map(|request| (Frame::Request(request), channel)),
            name if name == b"Response" => read::<ResponseDraft<'_>>(within, value, limits)
                .map(|response| (Frame::Response(response), channel)),
            name if name == b"ClaimRequest" => read::<ClaimRequestDraft<'_>>(within, value, limits)
                .map(|claim| (Frame::ClaimRequest(claim), channel)),
            name if name == b"ClaimResponse" => read::<ClaimResponseDraft<'_>>(within, value, limits)
                .map(|claim| (Frame::ClaimResponse(claim), channel)),
            name if name == b"Stream" => {
                read::<StreamDraft<'_>>(within, value, limits).map(|stream| (Frame::Stream(stream), channel))
            }
            _ => match Utf8::new(type_url) {
                Some(type_url) => {
                    let type_url = Text::slice(bytes, type_url);
                    Ok((Frame::Other(Any { type_url, value: within.slice_ref(value) }), channel))
                }
                None => Err(Envelope::refused(1, DecodeErrorKind::NotUtf8)),
            },
        }
    }

    /// What kind of message it is, for messages to people: the protobuf name of the protocol's own
    /// messages.
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

/// Decompresses a value.
#[cold]
fn decompress(compression: i32, value: &[u8], limits: &FrameLimits) -> Result<Bytes, DecodeError> {
    if compression != GZIP {
        let kind = DecodeErrorKind::Compression { number: compression };
        return Err(Envelope::refused(COMPRESSION, kind));
    }
    gzip::decompress_within(value, limits.frame_bytes).map(Bytes::from).map_err(|fault| {
        let kind = match fault {
            gzip::GzipFault::Damaged => DecodeErrorKind::Gzip,
            gzip::GzipFault::OverLimit => {
                let (limit, unit) = (limits.frame_bytes, "bytes of a decompressed value");
                DecodeErrorKind::OverLimit { limit, unit }
            }
        };
        Envelope::refused(2, kind)
    })
}

/// The name of a message of the protocol's own; empty for any other. Whatever stands before the
/// last slash does not matter.
#[inline]
fn own_type(type_url: &[u8]) -> &[u8] {
    if let Some(name) = type_url.strip_prefix(PREFIX.as_bytes()) {
        return name;
    }
    let name = type_url.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    name.strip_prefix(b"internal.").unwrap_or_default()
}

/// A message in its envelope, compressed where that is wanted and makes the envelope smaller.
fn envelope(type_url: &str, message: &impl Encode, channel: &str, compression: Option<Compression>) -> Bytes {
    let len = message.encoded_len();
    if compression.is_none_or(|compression| len < compression.threshold) {
        return write(type_url, message, len, channel, NONE);
    }
    let mut value = Vec::with_capacity(len);
    message.encode(&mut value);
    let compressed = gzip::compress(&value);
    if compressed.len() + COMPRESSION_LEN < len {
        write(type_url, &Value(&compressed), compressed.len(), channel, GZIP)
    } else {
        write(type_url, &Value(&value), len, channel, NONE)
    }
}

/// What it takes to say that a value is compressed.
const COMPRESSION_LEN: usize = 2;

/// Writes `internal.Msg`: type_url 1, value 2, channel 3, compression 4.
fn write(type_url: &str, value: &impl Encode, len: usize, channel: &str, compression: i32) -> Bytes {
    let string =
        |text: &str| if text.is_empty() { 0 } else { 1 + varint_len(text.len() as u64) + text.len() };
    let field = if len == 0 { 0 } else { 1 + varint_len(len as u64) + len };
    let last = if compression == NONE { 0 } else { COMPRESSION_LEN };
    let mut out = Vec::with_capacity(string(type_url) + field + string(channel) + last);
    out.bytes(1, type_url.as_bytes());
    if len > 0 {
        out.head(2, len);
        value.encode(&mut out);
    }
    out.bytes(3, channel.as_bytes());
    if compression != NONE {
        out.int64(COMPRESSION, i64::from(compression));
    }
    Bytes::from(out)
}

/// A message that is encoded already.
struct Value<'a>(&'a [u8]);

impl Encode for Value<'_> {
    fn encode(&self, out: &mut impl Sink) {
        out.raw(self.0);
    }
}

/// `internal.Msg` as it is read: what it holds is looked into once its type is known.
#[derive(Default)]
struct Envelope<'a> {
    type_url: &'a [u8],
    value: &'a [u8],
    channel: Utf8<'a>,
    compression: i32,
}

impl Envelope<'_> {
    fn refused(field: u32, kind: DecodeErrorKind) -> DecodeError {
        DecodeError { message: Self::NAME, field, kind }
    }
}

impl<'a> Decode<'a> for Envelope<'a> {
    const NAME: &'static str = "internal.Msg";
    type Message = Self;

    fn field(&mut self, field: u32, wire: WireType, reader: &mut Reader<'a>) -> Result<(), WireFault> {
        match field {
            1 => self.type_url = reader.slice(wire)?,
            2 => self.value = reader.slice(wire)?,
            3 => self.channel = reader.text(wire)?,
            COMPRESSION => self.compression = reader.int64(wire)? as i32,
            _ => reader.skip(field, wire)?,
        }
        Ok(())
    }

    #[inline]
    fn finish(&mut self, _: &Bytes) -> Self {
        core::mem::take(self)
    }
}
