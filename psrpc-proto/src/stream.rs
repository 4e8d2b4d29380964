//! Stream frames: openings, messages, acks and closes.

use bytes::Bytes;

use crate::any::PayloadDraft;
use crate::metadata::MetadataDraft;
use crate::text::Utf8;
use crate::wire::{Decode, Encode, Reader, Sink, WireFault, WireType};
use crate::{ErrorCode, Metadata, Text};

/// One frame of a stream (`internal.Stream`, PROTOCOL sections 1 and 8).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stream {
    /// The id of the stream.
    pub stream_id: Text,
    /// The id of this frame. An ack carries the id of the frame that it acknowledges.
    pub request_id: Text,
    /// When the frame was sent, by the sender's wall clock, in Unix nanoseconds.
    pub sent_at: i64,
    /// When the frame expires, by the sender's wall clock, in Unix nanoseconds.
    pub expiry: i64,
    /// The body; `None` if this version does not know its kind.
    pub body: Option<StreamBody>,
}

/// The body of a stream frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamBody {
    /// Opens the stream. Sent by a client.
    Open {
        /// The client's id.
        node_id: Text,
        /// The client's metadata.
        metadata: Metadata,
    },
    /// Carries a message.
    Message {
        /// The encoded message.
        payload: Bytes,
    },
    /// Acknowledges a frame.
    Ack,
    /// Ends the stream. An empty text is sent as the code, as in
    /// [`ErrorResponse`](crate::ErrorResponse).
    Close {
        /// The code of the cause.
        code: ErrorCode,
        /// The text of the cause.
        text: Text,
    },
}

impl Encode for Stream {
    fn encode(&self, out: &mut impl Sink) {
        out.text(1, &self.stream_id);
        out.text(2, &self.request_id);
        out.int64(3, self.sent_at);
        out.int64(4, self.expiry);
        if let Some(body) = &self.body {
            let field = match body {
                StreamBody::Open { .. } => 6,
                StreamBody::Message { .. } => 7,
                StreamBody::Ack => 8,
                StreamBody::Close { .. } => 9,
            };
            out.message(field, body);
        }
    }
}

impl Encode for StreamBody {
    fn encode(&self, out: &mut impl Sink) {
        match self {
            StreamBody::Open { node_id, metadata } => {
                out.text(1, node_id);
                metadata.encode(7, out);
            }
            StreamBody::Message { payload } => out.bytes(2, payload),
            StreamBody::Ack => {}
            StreamBody::Close { code, text } => {
                let code = code.as_bytes();
                out.delimited(1, if text.is_empty() { code } else { text.as_bytes() });
                out.delimited(2, code);
            }
        }
    }
}

#[derive(Default)]
pub(crate) struct StreamDraft<'a> {
    stream_id: Utf8<'a>,
    request_id: Utf8<'a>,
    sent_at: i64,
    expiry: i64,
    body: BodyDraft<'a>,
}

/// A partially read body. A different kind of body replaces it; the same kind is merged into it.
#[derive(Default)]
enum BodyDraft<'a> {
    #[default]
    None,
    Open(OpenDraft<'a>),
    Message(MessageDraft<'a>),
    Ack,
    Close(CloseDraft<'a>),
}

impl<'a> Decode<'a> for StreamDraft<'a> {
    const NAME: &'static str = "internal.Stream";
    type Message = Stream;

    fn field(&mut self, field: u32, wire: WireType, reader: &mut Reader<'a>) -> Result<(), WireFault> {
        let body = &mut self.body;
        match field {
            1 => self.stream_id = reader.id(wire)?,
            2 => self.request_id = reader.id(wire)?,
            3 => self.sent_at = reader.int64(wire)?,
            4 => self.expiry = reader.int64(wire)?,
            6 => {
                let mut open = match core::mem::take(body) {
                    BodyDraft::Open(open) => open,
                    _ => OpenDraft::default(),
                };
                reader.embedded(wire, &mut open)?;
                *body = BodyDraft::Open(open);
            }
            7 => {
                let mut message = match core::mem::take(body) {
                    BodyDraft::Message(message) => message,
                    _ => MessageDraft::default(),
                };
                reader.embedded(wire, &mut message)?;
                *body = BodyDraft::Message(message);
            }
            8 => {
                reader.embedded(wire, &mut AckDraft)?;
                *body = BodyDraft::Ack;
            }
            9 => {
                let mut close = match core::mem::take(body) {
                    BodyDraft::Close(close) => close,
                    _ => CloseDraft::default(),
                };
                reader.embedded(wire, &mut close)?;
                *body = BodyDraft::Close(close);
            }
            _ => reader.skip(field, wire)?,
        }
        Ok(())
    }

    #[inline]
    fn finish(&mut self, frame: &Bytes) -> Stream {
        let body = match &mut self.body {
            BodyDraft::None => None,
            BodyDraft::Open(open) => Some(open.finish(frame)),
            BodyDraft::Message(message) => Some(message.finish(frame)),
            BodyDraft::Ack => Some(StreamBody::Ack),
            BodyDraft::Close(close) => Some(close.finish(frame)),
        };
        Stream {
            stream_id: Text::copy(self.stream_id),
            request_id: Text::copy(self.request_id),
            sent_at: self.sent_at,
            expiry: self.expiry,
            body,
        }
    }
}

#[derive(Default)]
struct OpenDraft<'a> {
    node_id: Utf8<'a>,
    metadata: MetadataDraft,
}

impl<'a> Decode<'a> for OpenDraft<'a> {
    const NAME: &'static str = "internal.StreamOpen";
    type Message = StreamBody;

    fn field(&mut self, field: u32, wire: WireType, reader: &mut Reader<'a>) -> Result<(), WireFault> {
        match field {
            1 => self.node_id = reader.id(wire)?,
            7 => self.metadata.entry(wire, reader)?,
            _ => reader.skip(field, wire)?,
        }
        Ok(())
    }

    #[inline]
    fn finish(&mut self, _: &Bytes) -> StreamBody {
        StreamBody::Open { node_id: Text::copy(self.node_id), metadata: self.metadata.finish() }
    }
}

#[derive(Default)]
struct MessageDraft<'a>(PayloadDraft<'a>);

impl<'a> Decode<'a> for MessageDraft<'a> {
    const NAME: &'static str = "internal.StreamMessage";
    type Message = StreamBody;

    fn field(&mut self, field: u32, wire: WireType, reader: &mut Reader<'a>) -> Result<(), WireFault> {
        match field {
            1 => self.0.any(wire, reader),
            2 => self.0.raw(wire, reader),
            _ => reader.skip(field, wire),
        }
    }

    #[inline]
    fn finish(&mut self, frame: &Bytes) -> StreamBody {
        StreamBody::Message { payload: self.0.finish(frame) }
    }
}

#[derive(Default)]
struct AckDraft;

impl Decode<'_> for AckDraft {
    const NAME: &'static str = "internal.StreamAck";
    type Message = StreamBody;

    fn field(&mut self, field: u32, wire: WireType, reader: &mut Reader<'_>) -> Result<(), WireFault> {
        reader.skip(field, wire)
    }

    #[inline]
    fn finish(&mut self, _: &Bytes) -> StreamBody {
        StreamBody::Ack
    }
}

#[derive(Default)]
struct CloseDraft<'a> {
    error: Utf8<'a>,
    code: Utf8<'a>,
}

impl<'a> Decode<'a> for CloseDraft<'a> {
    const NAME: &'static str = "internal.StreamClose";
    type Message = StreamBody;

    fn field(&mut self, field: u32, wire: WireType, reader: &mut Reader<'a>) -> Result<(), WireFault> {
        match field {
            1 => self.error = reader.text(wire)?,
            2 => self.code = reader.text(wire)?,
            _ => reader.skip(field, wire)?,
        }
        Ok(())
    }

    #[inline]
    fn finish(&mut self, frame: &Bytes) -> StreamBody {
        let code = ErrorCode::from(Text::slice(frame, self.code));
        StreamBody::Close { code, text: Text::slice(frame, self.error) }
    }
}
