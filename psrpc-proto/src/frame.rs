//! Frames: messages of the protocol in their envelope.

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

/// The common prefix of the type URLs of the protocol's own messages.
const PREFIX: &str = "type.googleapis.com/internal.";
const REQUEST: &str = "type.googleapis.com/internal.Request";
const RESPONSE: &str = "type.googleapis.com/internal.Response";
const CLAIM_REQUEST: &str = "type.googleapis.com/internal.ClaimRequest";
const CLAIM_RESPONSE: &str = "type.googleapis.com/internal.ClaimResponse";
const STREAM: &str = "type.googleapis.com/internal.Stream";

/// The length from which a frame is copied if it is mostly unknown fields, in bytes.
const SPARSE: usize = 4096;

/// The field of `internal.Msg` that gives the compression of its value.
const COMPRESSION: u32 = 4;

/// The compression number of an uncompressed value; omitted when written.
const UNCOMPRESSED: i32 = 0;

/// The compression number of gzip.
const GZIP: i32 = 1;

/// A message published on a channel (PROTOCOL section 1).
///
/// An in-process bus passes frames on as values; any other bus carries them encoded in an envelope.
#[derive(Clone, Debug, PartialEq)]
pub enum Frame {
    /// A call.
    Request(Request),
    /// A response.
    Response(Response),
    /// A bid or an announcement.
    ClaimRequest(ClaimRequest),
    /// A grant.
    ClaimResponse(ClaimResponse),
    /// A frame of a stream.
    Stream(Stream),
    /// A message that is not the protocol's own: an update, or an unknown type.
    Other(Any),
    /// An encoded envelope. It is published as it is. The receiver decodes it with
    /// [`Frame::decode`], which reports any fault.
    Raw(Bytes),
}

impl Frame {
    /// Encodes the frame in an envelope that names `channel`. Pass the channel's *local* name on
    /// every bus.
    ///
    /// Writes in one pass into one buffer of the exact size.
    pub fn encode(&self, channel: &str) -> Bytes {
        self.encode_with(channel, None)
    }

    /// Encodes the frame like [`encode`](Self::encode). Compresses a value that reaches the
    /// threshold of `compression`, if that makes it smaller.
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

    /// Returns the length of the encoded, uncompressed value: about the memory that the decoded
    /// frame takes. For a [`Frame::Raw`], returns the length of the envelope as it is.
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

    /// Decodes a published frame, and returns it with the channel that its envelope names.
    ///
    /// A compressed value is decompressed first, to at most [`FrameLimits::frame_bytes`]. Payloads,
    /// and long texts other than ids, are slices of `bytes` or of the decompressed value, unless
    /// most of it is unknown fields: then they are copied, so that it can be freed. A message
    /// that is not the protocol's own becomes a [`Frame::Other`]; the result is never a
    /// [`Frame::Raw`].
    ///
    /// # Errors
    ///
    /// Returns an error if `bytes` is not an envelope, if the value is not a message of the named
    /// type, if its compression is unknown or the compressed value is corrupt, or if a limit is
    /// exceeded.
    pub fn decode(bytes: &Bytes, limits: &FrameLimits) -> Result<(Frame, Text), DecodeError> {
        if bytes.len() > limits.frame_bytes {
            let (limit, unit) = (limits.frame_bytes, "bytes of a frame");
            return Err(Envelope::error(0, DecodeErrorKind::OverLimit { limit, unit }));
        }
        let Envelope { type_url, value, channel, compression } = read::<Envelope<'_>>(bytes, bytes, limits)?;
        let channel = Text::slice(bytes, channel);
        if compression == UNCOMPRESSED && bytes.len() < SPARSE {
            return Self::decode_value(type_url, value, bytes, bytes, channel, limits);
        }
        if compression == UNCOMPRESSED {
            let decoded = Self::decode_value(type_url, value, bytes, bytes, channel, limits)?;
            return Self::compact(decoded, bytes.len(), limits);
        }
        let value = decompress(compression, value, limits)?;
        let decoded = Self::decode_value(type_url, &value, &value, bytes, channel, limits)?;
        Self::compact(decoded, value.len(), limits)
    }

    /// Copies a frame that would keep `held` bytes alive of which it uses less than half: a peer
    /// could fill a frame with unknown fields, which no limit on metadata or payloads counts.
    fn compact(
        decoded: (Frame, Text),
        held: usize,
        limits: &FrameLimits,
    ) -> Result<(Frame, Text), DecodeError> {
        if held < SPARSE || held / 2 <= decoded.0.value_len() {
            return Ok(decoded);
        }
        let copy = decoded.0.encode(decoded.1.as_str());
        let Envelope { type_url, value, channel, .. } = read::<Envelope<'_>>(&copy, &copy, limits)?;
        Self::decode_value(type_url, value, &copy, &copy, Text::slice(&copy, channel), limits)
    }

    /// Decodes the value of an envelope. `value` is a part of `within`, and `type_url` a part of
    /// `bytes`.
    #[inline]
    fn decode_value(
        type_url: &[u8],
        value: &[u8],
        within: &Bytes,
        bytes: &Bytes,
        channel: Text,
        limits: &FrameLimits,
    ) -> Result<(Frame, Text), DecodeError> {
        // Each arm builds the whole result, which avoids moving the frame. A guard compares the
        // whole name in one operation; a byte-string pattern would compare byte by byte.
        match internal_name(type_url) {
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
                None => Err(Envelope::error(1, DecodeErrorKind::NotUtf8)),
            },
        }
    }

    /// Returns the kind of the frame for display: `Request`, `Response`, `ClaimRequest`,
    /// `ClaimResponse`, `Stream`, `other` or `raw`.
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
        return Err(Envelope::error(COMPRESSION, kind));
    }
    gzip::decompress_within(value, limits.frame_bytes).map(Bytes::from).map_err(|fault| {
        let kind = match fault {
            gzip::GzipFault::Damaged => DecodeErrorKind::Gzip,
            gzip::GzipFault::OverLimit => {
                let (limit, unit) = (limits.frame_bytes, "bytes of a decompressed value");
                DecodeErrorKind::OverLimit { limit, unit }
            }
        };
        Envelope::error(2, kind)
    })
}

/// Returns the name of one of the protocol's own messages, or an empty name for any other. Only the
/// part after the last slash matters.
#[inline]
fn internal_name(type_url: &[u8]) -> &[u8] {
    if let Some(name) = type_url.strip_prefix(PREFIX.as_bytes()) {
        return name;
    }
    let name = type_url.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    name.strip_prefix(b"internal.").unwrap_or_default()
}

/// Encodes a message in its envelope, compressed if requested and smaller that way.
fn envelope(type_url: &str, message: &impl Encode, channel: &str, compression: Option<Compression>) -> Bytes {
    let len = message.encoded_len();
    if compression.is_none_or(|compression| len < compression.threshold) {
        return write(type_url, message, len, channel, UNCOMPRESSED);
    }
    let mut value = Vec::with_capacity(len);
    message.encode(&mut value);
    let compressed = gzip::compress(&value);
    if compressed.len() + COMPRESSION_LEN < len {
        write(type_url, &Value(&compressed), compressed.len(), channel, GZIP)
    } else {
        write(type_url, &Value(&value), len, channel, UNCOMPRESSED)
    }
}

/// The encoded length of the compression field.
const COMPRESSION_LEN: usize = 2;

/// Writes `internal.Msg`: type_url 1, value 2, channel 3, compression 4.
fn write(type_url: &str, value: &impl Encode, len: usize, channel: &str, compression: i32) -> Bytes {
    let string =
        |text: &str| if text.is_empty() { 0 } else { 1 + varint_len(text.len() as u64) + text.len() };
    let field = if len == 0 { 0 } else { 1 + varint_len(len as u64) + len };
    let last = if compression == UNCOMPRESSED { 0 } else { COMPRESSION_LEN };
    let mut out = Vec::with_capacity(string(type_url) + field + string(channel) + last);
    out.bytes(1, type_url.as_bytes());
    if len > 0 {
        out.tag_and_len(2, len);
        value.encode(&mut out);
    }
    out.bytes(3, channel.as_bytes());
    if compression != UNCOMPRESSED {
        out.int64(COMPRESSION, i64::from(compression));
    }
    Bytes::from(out)
}

/// A message that is already encoded.
struct Value<'a>(&'a [u8]);

impl Encode for Value<'_> {
    fn encode(&self, out: &mut impl Sink) {
        out.raw(self.0);
    }
}

/// The fields of `internal.Msg`. The value is decoded once its type is known.
#[derive(Default)]
struct Envelope<'a> {
    type_url: &'a [u8],
    value: &'a [u8],
    channel: Utf8<'a>,
    compression: i32,
}

impl Envelope<'_> {
    fn error(field: u32, kind: DecodeErrorKind) -> DecodeError {
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
