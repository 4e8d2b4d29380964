//! The request: a client's call to the servers of a method.

use bytes::Bytes;

use crate::any::PayloadDraft;
use crate::metadata::MetadataDraft;
use crate::text::Utf8;
use crate::wire::{Decode, Encode, Reader, Sink, WireFault, WireType};
use crate::{Metadata, Text};

/// A call to the servers of a method (`internal.Request`, PROTOCOL sections 1 and 5).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// The id of the call, unique within its client.
    pub request_id: Text,
    /// The calling client, to which bids and responses go.
    pub client_id: Text,
    /// When the request was sent, by the client's wall clock, in Unix nanoseconds.
    pub sent_at: i64,
    /// When the request expires, by the client's wall clock, in Unix nanoseconds.
    pub expiry: i64,
    /// Whether every server answers.
    pub multi: bool,
    /// The caller's metadata.
    pub metadata: Metadata,
    /// The encoded message.
    pub payload: Bytes,
    /// Whether a server may announce the request and run it without waiting for a grant.
    pub skip_claim: bool,
}

impl Encode for Request {
    fn encode(&self, out: &mut impl Sink) {
        out.text(1, &self.request_id);
        out.text(2, &self.client_id);
        out.int64(3, self.sent_at);
        out.int64(4, self.expiry);
        out.bool(5, self.multi);
        self.metadata.encode(7, out);
        out.bytes(8, &self.payload);
        out.bool(10, self.skip_claim);
    }
}

#[derive(Default)]
pub(crate) struct RequestDraft<'a> {
    request_id: Utf8<'a>,
    client_id: Utf8<'a>,
    sent_at: i64,
    expiry: i64,
    multi: bool,
    metadata: MetadataDraft,
    payload: PayloadDraft<'a>,
    skip_claim: bool,
}

impl<'a> Decode<'a> for RequestDraft<'a> {
    const NAME: &'static str = "internal.Request";
    type Message = Request;

    fn field(&mut self, field: u32, wire: WireType, reader: &mut Reader<'a>) -> Result<(), WireFault> {
        match field {
            1 => self.request_id = reader.id(wire)?,
            2 => self.client_id = reader.id(wire)?,
            3 => self.sent_at = reader.int64(wire)?,
            4 => self.expiry = reader.int64(wire)?,
            5 => self.multi = reader.bool(wire)?,
            6 => self.payload.any(wire, reader)?,
            7 => self.metadata.entry(wire, reader)?,
            8 => self.payload.raw(wire, reader)?,
            // 9 is reserved: only Go v0.7.4, which was withdrawn, used it.
            10 => self.skip_claim = reader.bool(wire)?,
            _ => reader.skip(field, wire)?,
        }
        Ok(())
    }

    #[inline]
    fn finish(&mut self, frame: &Bytes) -> Request {
        Request {
            request_id: Text::copy(self.request_id),
            client_id: Text::copy(self.client_id),
            sent_at: self.sent_at,
            expiry: self.expiry,
            multi: self.multi,
            metadata: self.metadata.finish(),
            payload: self.payload.finish(frame),
            skip_claim: self.skip_claim,
        }
    }
}
