//! The claim: a server's bid and the client's grant.

use bytes::Bytes;

use crate::Text;
use crate::text::Utf8;
use crate::wire::{Decode, Encode, Reader, Sink, WireFault, WireType};

/// A server's bid for a request (`internal.ClaimRequest`, PROTOCOL section 5.3).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClaimRequest {
    /// The call that the server bids for.
    pub request_id: Text,
    /// The bidding server.
    pub server_id: Text,
    /// How well the server suits the call; higher is better.
    pub affinity: f32,
    /// Whether this is an announcement instead of a bid: the server already runs the request,
    /// without a grant.
    pub handling: bool,
}

impl Encode for ClaimRequest {
    fn encode(&self, out: &mut impl Sink) {
        out.text(1, &self.request_id);
        out.text(2, &self.server_id);
        out.float(3, self.affinity);
        out.bool(4, self.handling);
    }
}

#[derive(Default)]
pub(crate) struct ClaimRequestDraft<'a> {
    request_id: Utf8<'a>,
    server_id: Utf8<'a>,
    affinity: f32,
    handling: bool,
}

impl<'a> Decode<'a> for ClaimRequestDraft<'a> {
    const NAME: &'static str = "internal.ClaimRequest";
    type Message = ClaimRequest;

    fn field(&mut self, field: u32, wire: WireType, reader: &mut Reader<'a>) -> Result<(), WireFault> {
        match field {
            1 => self.request_id = reader.id(wire)?,
            2 => self.server_id = reader.id(wire)?,
            3 => self.affinity = reader.float(wire)?,
            4 => self.handling = reader.bool(wire)?,
            _ => reader.skip(field, wire)?,
        }
        Ok(())
    }

    #[inline]
    fn finish(&mut self, _: &Bytes) -> ClaimRequest {
        ClaimRequest {
            request_id: Text::copy(self.request_id),
            server_id: Text::copy(self.server_id),
            affinity: self.affinity,
            handling: self.handling,
        }
    }
}

/// The client's grant, which every server of the method receives (`internal.ClaimResponse`,
/// PROTOCOL section 5.4).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClaimResponse {
    /// The granted call.
    pub request_id: Text,
    /// The server that may run it.
    pub server_id: Text,
}

impl Encode for ClaimResponse {
    fn encode(&self, out: &mut impl Sink) {
        out.text(1, &self.request_id);
        out.text(2, &self.server_id);
    }
}

#[derive(Default)]
pub(crate) struct ClaimResponseDraft<'a> {
    request_id: Utf8<'a>,
    server_id: Utf8<'a>,
}

impl<'a> Decode<'a> for ClaimResponseDraft<'a> {
    const NAME: &'static str = "internal.ClaimResponse";
    type Message = ClaimResponse;

    fn field(&mut self, field: u32, wire: WireType, reader: &mut Reader<'a>) -> Result<(), WireFault> {
        match field {
            1 => self.request_id = reader.id(wire)?,
            2 => self.server_id = reader.id(wire)?,
            _ => reader.skip(field, wire)?,
        }
        Ok(())
    }

    #[inline]
    fn finish(&mut self, _: &Bytes) -> ClaimResponse {
        ClaimResponse { request_id: Text::copy(self.request_id), server_id: Text::copy(self.server_id) }
    }
}
